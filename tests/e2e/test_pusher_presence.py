"""Presence channels of Pusher over two workers, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.farm_fixture import Farm, running_farm, until
from support.pusher import (
    CRASH,
    KEY,
    C,
    Client,
    call,
    clients,
    drop,
    members,
    new_name,
    nothing_before_now,
    router_is_another,
    signed,
    trigger,
    with_apps,
)

CLIENTS = 12
_ESTABLISHED = 1  # of the kernel's states of a connection


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers."""
    folder = tmp_path_factory.mktemp("farm")
    settings = with_apps(folder, pusher__authorization_timeout=1, pusher__max_members=20)
    with running_farm(folder / "data", settings) as farm:
        yield farm


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Farm]:
    """Two workers, of a farm for one test, that notices soon which process has died."""
    with running_farm(tmp_path / "data", with_apps(tmp_path) | CRASH) as farm:
        yield farm


def test_members_are_told_of_each_other_across_shards(farm: Farm) -> None:
    channel = new_name("presence-")
    with clients(farm, 4) as there:
        for number, client in enumerate(there):
            expected = [f"user{n}" for n in range(number + 1)]
            assert client.enter(channel, f"user{number}") == expected
            for other in there[:number]:
                told = other.expect("pusher_internal:member_added", channel)
                assert told == {"user_id": f"user{number}", "user_info": {"name": f"User{number}"}}
        assert members(farm, channel) == [f"user{n}" for n in range(4)]
        there[3].send("client-hello", {}, channel)
        for other in there[:3]:
            found = other.event()
            assert (found["event"], found["user_id"]) == ("client-hello", "user3")
        there[3].close()
        there[2].send("pusher:unsubscribe", {"channel": channel})
        for other in there[:2]:
            gone = {other.expect("pusher_internal:member_removed", channel)["user_id"] for _ in range(2)}
            assert gone == {"user2", "user3"}
        nothing_before_now(farm, channel, *there[:2])
        assert members(farm, channel) == ["user0", "user1"]


def test_who_is_signed_in_is_present_as_that_user(farm: Farm) -> None:
    channel = new_name("presence-")
    with Client(farm) as client:
        client.sign_in("eve", user_info={"name": "Eve"})
        presence = client.subscribe(channel)["presence"]
        assert presence == {"ids": ["eve"], "hash": {"eve": {"name": "Eve"}}, "count": 1}


def test_a_member_on_two_shards_comes_once_and_leaves_once(farm: Farm) -> None:
    channel = new_name("presence-")
    with clients(farm, 6) as there:
        observers = [there[0], there[-1]]
        assert observers[0].shard != observers[1].shard
        observers[0].enter(channel, "one")
        observers[1].enter(channel, "other")
        observers[0].expect("pusher_internal:member_added", channel)
        twice = there[1:-1]
        for client in twice:
            assert client.enter(channel, "many") == ["many", "one", "other"]
        for observer in observers:
            assert observer.expect("pusher_internal:member_added", channel)["user_id"] == "many"
        nothing_before_now(farm, channel, *observers)
        for client in twice[:-1]:
            client.close()
        nothing_before_now(farm, channel, *observers)
        assert members(farm, channel) == ["many", "one", "other"]
        twice[-1].close()
        for observer in observers:
            assert observer.expect("pusher_internal:member_removed", channel) == {"user_id": "many"}
        nothing_before_now(farm, channel, *observers)


def test_a_presence_channel_has_so_many_members(farm: Farm) -> None:
    channel = new_name("presence-")
    with contextlib.ExitStack() as stack:
        there = [stack.enter_context(Client(farm)) for _ in range(21)]
        for number, client in enumerate(there[:20]):
            client.enter(channel, f"user{number}")
        data = json.dumps({"user_id": "late"})
        late = there[20]
        auth = f"{KEY}:{signed(f'{late.socket_id}:{channel}:{data}')}"
        late.send("pusher:subscribe", {"channel": channel, "auth": auth, "channel_data": data})
        assert late.expect("pusher:subscription_error", channel)["type"] == "LimitReached"
        there[0].close()
        until(lambda: len(members(farm, channel)) == 19, "one has left")
        assert len(late.enter(channel, "late")) == 20


def _survivors(there: Sequence[C]) -> tuple[list[C], list[C]]:
    """Which of these are still connected, and which are not, whatever there is to be read from them."""
    alive: list[C] = []
    dead: list[C] = []
    for client in there:
        state = client.socket.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        (alive if state == _ESTABLISHED else dead).append(client)
    return alive, dead


def test_members_of_a_killed_worker_leave_and_no_others(mortal: Farm) -> None:
    channel = new_name("presence-")
    with clients(mortal, CLIENTS) as there:
        watching = {}
        for number, client in enumerate(there):
            client.enter(channel, f"user{number}")
            for other in there[:number]:
                other.expect("pusher_internal:member_added", channel)
        with clients(mortal, 4) as pair:  # one user with connections on both shards
            for client in pair:
                client.enter(channel, "both")
            for client in there:
                client.expect("pusher_internal:member_added", channel)
            os.kill(mortal.worker_pid(0), signal.SIGKILL)
            until(lambda: len(_survivors(there)[1]) > 0, "connections of the killed worker end")
            alive, dead = _survivors(there)
            assert len({client.shard for client in dead}) == 1
            assert not {client.shard for client in dead} & {client.shard for client in alive}
            expected = sorted(client.user for client in dead)
            for client in alive:
                told = [client.expect("pusher_internal:member_removed", channel)["user_id"] for _ in expected]
                watching[client.user] = sorted(told)
            assert all(told == expected for told in watching.values())
            mortal.wait_healthy()
            nothing_before_now(mortal, channel, *alive)
            still = sorted([*(client.user for client in alive), "both"])
            assert members(mortal, channel) == still
            with Client(mortal) as new:
                assert new.enter(channel, "new") == sorted([*still, "new"])
                for client in alive:
                    assert client.expect("pusher_internal:member_added", channel)["user_id"] == "new"


def test_nobody_leaves_because_the_router_was_killed(mortal: Farm) -> None:
    channel = new_name("presence-")
    with clients(mortal, 6) as there:
        for number, client in enumerate(there):
            client.enter(channel, f"user{number}")
            for other in there[:number]:
                other.expect("pusher_internal:member_added", channel)
        os.kill(mortal.router_pid(), signal.SIGKILL)
        gone, *stay = there
        gone.close()
        router_is_another(mortal)
        for client in stay:
            assert client.expect("pusher_internal:member_removed", channel) == {"user_id": "user0"}
        nothing_before_now(mortal, channel, *stay)
        assert members(mortal, channel) == [client.user for client in stay]
        with clients(mortal, 2) as new:
            assert new[0].enter(channel, "again") == ["again", *(client.user for client in stay)]
            assert new[1].enter(channel, "again") == ["again", *(client.user for client in stay)]
            for client in stay:
                assert client.expect("pusher_internal:member_added", channel)["user_id"] == "again"
            nothing_before_now(mortal, channel, *stay)


def test_counts_are_right_after_everything_was_killed(mortal: Farm) -> None:
    channel = new_name()

    def count() -> Any:
        return call(mortal, "GET", f"/channels/{channel}").json()

    with clients(mortal, 6) as there:
        for client in there:
            client.subscribe(channel)
        assert count()["occupied"] is True
        os.kill(mortal.router_pid(), signal.SIGKILL)
        router_is_another(mortal)
        assert until(lambda: count()["occupied"], "the channel is known again")
        for shard in (0, 1):
            os.kill(mortal.worker_pid(shard), signal.SIGKILL)
        until(lambda: not _survivors(there)[0], "all connections have gone")
        mortal.wait_healthy()
        until(lambda: count()["occupied"] is False, "the channel is empty")


class Witness(Client):
    """A member that keeps a list of the members that were announced to it."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm)
        self.view: set[str] = set()

    def enter(self, channel: str, user: str) -> list[str]:
        there = super().enter(channel, user)
        self.view = set(there)
        return there

    def look(self, channel: str, mark: str) -> None:
        """Receive everything up to a mark. No member is added twice, or removed without having been added."""
        while (found := self.event())["event"] != "mark" or found["data"] != mark:
            if found["event"] == "mark":
                continue
            user = found["data"]["user_id"]
            if found["event"] == "pusher_internal:member_added":
                assert user not in self.view, f"{user} came twice"
                self.view.add(user)
            else:
                assert (found["event"], found["channel"]) == ("pusher_internal:member_removed", channel)
                assert user in self.view, f"{user} left twice"
                self.view.remove(user)


def _kill(farm: Farm, pid: int) -> None:
    """SIGKILL, and wait until the supervisor knows of it."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: any(event["pid"] == pid for event in farm.events("process.died")), "the process has died")


def test_everyone_knows_who_is_there_in_the_end(mortal: Farm) -> None:
    channel = new_name("presence-")
    chance = random.Random(5)
    there: list[Witness] = []

    def agreed() -> bool:
        mark = new_name()
        trigger(mortal, channel, "mark", mark)
        for client in there:
            client.look(channel, mark)
        users = {client.user for client in there}
        return all(client.view == users for client in there) and members(mortal, channel) == sorted(users)

    with contextlib.ExitStack() as stack:
        for victim in ("", "worker 0", "router", "", "worker 1", "router", "worker 0", ""):
            if victim == "router":
                _kill(mortal, mortal.router_pid())
            elif victim:
                _kill(mortal, mortal.worker_pid(int(victim.split()[1])))
                for client in _survivors(there)[1]:
                    there.remove(client)
            for _ in range(6):
                client = Witness(mortal)
                stack.callback(drop, client)
                client.enter(channel, f"user{chance.randrange(12)}")
                there.append(client)
            for _ in range(4):
                there.pop(chance.randrange(len(there))).close()
        mortal.wait_healthy()
        until(agreed, "all know the same")
        nothing_before_now(mortal, channel, *there)
