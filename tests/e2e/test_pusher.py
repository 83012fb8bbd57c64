"""Pusher on a whole farm: devices on two shards, app servers that sign, and processes killed while members are present.

Devices are websocket-client, signatures are made here with hmac: nothing of the farm's own code on this side.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import os
import random
import signal
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, Json, curl, refusal, running_farm, until

KEY = "278d425bdf160c739803"
SECRET = "7ad3773142a6692b25b8"
APP = {"id": 3, "name": "shop", "key": KEY, "secret": SECRET, "client_messages": True, "watchlists": True}
OTHER = {"name": "other", "key": "other-key", "secret": "other-secret"}
SHUT = {"name": "shut", "key": "shut-key", "secret": "shut-secret", "enabled": False}
STRICT = {"name": "strict", "key": "strict-key", "secret": "strict-secret", "authorized_connections": True}
CRASH = {"link.lease": 2, "farm.restart_max": 0.1}
CLIENTS = 12
ROUNDS = 20
_ESTABLISHED = 1  # of the kernel's states of a connection


def with_apps(folder: Path, **settings: Any) -> Json:
    """Settings of a farm with these applications."""
    file = folder / "apps.json"
    file.write_text(json.dumps({"applications": [APP, OTHER, SHUT, STRICT]}))
    return {"pusher.apps": file} | {name.replace("__", "."): value for name, value in settings.items()}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers."""
    folder = tmp_path_factory.mktemp("farm")
    settings = with_apps(folder, pusher__authorization_timeout=1, pusher__max_members=20)
    with running_farm(folder / "data", settings) as farm:
        yield farm


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Farm]:
    """Two workers, of a farm for one test, that broadcasts soon who is dead."""
    with running_farm(tmp_path / "data", with_apps(tmp_path) | CRASH) as farm:
        yield farm


# ---------------------------------------------------------------------- both sides


def signed(text: str, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def call(farm: Farm, method: str, path: str, body: Json | None = None, **query: str) -> HttpAnswer:
    """A signed request of application 3's server."""
    data = b"" if body is None else json.dumps(body).encode()
    query |= {"auth_key": KEY, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
    if data:
        query["body_md5"] = hashlib.md5(data).hexdigest()
    path = f"/apps/3{path}"
    text = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
    query["auth_signature"] = signed(f"{method}\n{path}\n{text}")
    url = farm.url(path) + "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())
    sent = ["--data-binary", "@-", "--header", "Content-Type: application/json"] if data else []
    return curl("--request", method, *sent, url, stdin=data)


def trigger(farm: Farm, channels: str | list[str], name: str, data: Any, **more: str) -> None:
    """Send an event."""
    channels = [channels] if isinstance(channels, str) else channels
    answer = call(farm, "POST", "/events", {"name": name, "channels": channels, "data": json.dumps(data)} | more)
    assert (answer.status, answer.json()) == (200, {}), answer


class Gone(Exception):
    """The server has closed the connection, with this code; 0: without a close frame."""


class Client:
    """A device on websocket-client, which blocks."""

    def __init__(
        self, farm: Farm, key: str = KEY, query: str = "protocol=7&client=test&version=1", receive_buffer: int = 0
    ) -> None:
        self.key = key
        options = ((socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer),) if receive_buffer else ()
        url = f"{farm.device_url}app/{key}?{query}"
        self.socket = websocket.create_connection(url, timeout=PATIENCE_S, sockopt=options)
        self.user = ""
        self.greeting = self.event()
        self.socket_id: str = ""
        if self.greeting["event"] == "pusher:connection_established":
            self.socket_id = self.greeting["data"]["socket_id"]

    @property
    def shard(self) -> str:
        """The same for all connections of one worker."""
        return self.socket_id.partition(".")[0]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye, and wait for the answer."""
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()

    def send(self, event: str, data: Any = None, channel: str = "") -> None:
        said = {"event": event, "data": data}
        self.socket.send(json.dumps(said | {"channel": channel} if channel else said))

    def event(self) -> Any:
        """The next event, its data decoded. Raises: Gone."""
        opcode, payload = self.socket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Gone(struct.unpack(">H", payload[:2])[0] if payload else 0)
        assert opcode == websocket.ABNF.OPCODE_TEXT
        found = json.loads(payload)
        if isinstance(found.get("data"), str):
            found["data"] = json.loads(found["data"])
        return found

    def expect(self, event: str, channel: str | None = None) -> Any:
        """The data of the next event, which must be this one."""
        found = self.event()
        assert (found["event"], found.get("channel")) == (event, channel), found
        return found.get("data")

    def code(self) -> int:
        """Of the close, which must be what comes next."""
        with pytest.raises(Gone) as gone:
            print("instead of a close:", self.event())
        code: int = gone.value.args[0]
        return code

    def subscribe(self, channel: str, channel_data: str | None = None, secret: str = SECRET) -> Any:
        """Subscribe, with a signature where it needs one. Returns: what the success brings."""
        said = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            parts = [self.socket_id, channel] + ([] if channel_data is None else [channel_data])
            said["auth"] = f"{self.key}:{signed(':'.join(parts), secret)}"
            if channel_data is not None:
                said["channel_data"] = channel_data
        self.send("pusher:subscribe", said)
        return self.expect("pusher_internal:subscription_succeeded", channel)

    def enter(self, channel: str, user: str) -> list[str]:
        """Subscribe to a presence channel. Returns: who is there."""
        self.user = user
        data = json.dumps({"user_id": user, "user_info": {"name": user.title()}})
        presence = self.subscribe(channel, data)["presence"]
        assert presence["count"] == len(presence["ids"])
        assert presence["hash"] == {name: {"name": name.title()} for name in presence["ids"]}
        return sorted(presence["ids"])

    def sign_in(self, user: str, **more: Any) -> None:
        data = json.dumps({"id": user} | more)
        self.send("pusher:signin", {"auth": f"{KEY}:{signed(f'{self.socket_id}::user::{data}')}", "user_data": data})
        assert self.expect("pusher:signin_success") == {"user_data": data}


C = TypeVar("C", bound=Client)


@contextlib.contextmanager
def clients(farm: Farm, count: int, key: str = KEY) -> Iterator[list[Client]]:
    """So many devices, which are not all on one shard; those of the first one's shard come first."""
    with contextlib.ExitStack() as stack:
        found: list[Client] = []

        def enough() -> bool:
            found.append(Client(farm, key))
            stack.callback(_drop, found[-1])
            return len(found) >= count and len({client.shard for client in found}) > 1

        until(enough, "devices on two shards")
        one = [client for client in found if client.shard == found[0].shard]
        other = [client for client in found if client.shard != found[0].shard]
        chosen = one[: max(1, count - len(other))]
        yield chosen + other[: count - len(chosen)]


def _drop(client: Client) -> None:
    client.socket.shutdown()


def new_name(prefix: str = "") -> str:
    return f"{prefix}{uuid.uuid4().hex}"


def nothing_before_now(farm: Farm, channel: str, *subscribers: Client) -> None:
    """That none of these is told anything more of what has happened in this channel."""
    mark = new_name()
    trigger(farm, channel, "mark", mark)
    for client in subscribers:
        assert client.expect("mark", channel) == mark


def members(farm: Farm, channel: str) -> list[str]:
    """As app servers are told."""
    answer = call(farm, "GET", f"/channels/{channel}/users")
    assert answer.status == 200, answer
    return sorted(user["id"] for user in answer.json()["users"])


def subscribers(farm: Farm, channel: str) -> int:
    """As app servers are told."""
    answer = call(farm, "GET", f"/channels/{channel}", info="subscription_count")
    assert answer.status == 200, answer
    count: int = answer.json()["subscription_count"]
    return count


# ---------------------------------------------------------------------- connection


def test_a_device_is_greeted_and_its_ping_answered(farm: Farm) -> None:
    with Client(farm) as client:
        assert client.greeting["data"]["activity_timeout"] == 120
        assert all(part.isdecimal() for part in client.socket_id.split("."))
        client.send("pusher:ping", {})
        assert client.expect("pusher:pong") == {}


@pytest.mark.parametrize(
    ("key", "query", "code"),
    [
        ("nobody", "protocol=7", 4001),
        ("shut-key", "protocol=7", 4003),
        ("", "protocol=7", 4005),
        (KEY, "protocol=x", 4006),
        (KEY, "protocol=3", 4007),
        (KEY, "client=js", 4008),
    ],
)
def test_who_cannot_be_served_is_told_and_closed(farm: Farm, key: str, query: str, code: int) -> None:
    client = Client(farm, key, query)
    assert client.greeting["event"] == "pusher:error"
    assert client.greeting["data"]["code"] == code
    assert client.code() == code
    client.socket.shutdown()


@pytest.mark.parametrize("prefix", ["", "private-", "presence-"])
def test_who_has_heard_that_it_is_subscribed_is_counted(farm: Farm, prefix: str) -> None:
    channel = new_name(prefix)
    with clients(farm, 8) as found:
        for number, client in enumerate(found, 1):
            client.subscribe(channel, json.dumps({"user_id": number}) if prefix == "presence-" else None)
            assert subscribers(farm, channel) == number


def test_a_path_that_goes_further_is_none(farm: Farm) -> None:
    host = f"127.0.0.1:{farm.device_port}"
    answer = refusal(farm.device_port, f"GET /app/{KEY}/more HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.status == 404


def test_who_is_not_authorized_in_time_is_closed(farm: Farm) -> None:
    stranger = Client(farm, "strict-key")
    with Client(farm, "strict-key") as friend:
        friend.subscribe("private-a", secret="strict-secret")
        assert stranger.expect("pusher:error")["code"] == 4009
        assert stranger.code() == 4009
        friend.send("pusher:ping")
        friend.expect("pusher:pong")
    stranger.socket.shutdown()


def test_a_device_that_falls_silent_is_asked_and_then_closed(tmp_path: Path) -> None:
    settings = with_apps(tmp_path, pusher__activity_timeout=1, pusher__pong_timeout=1)
    with running_farm(tmp_path / "data", settings, workers=1) as farm:
        client = Client(farm)
        client.expect("pusher:ping")
        client.send("pusher:pong", {})
        client.expect("pusher:ping")
        assert client.code() == 4201
        client.socket.shutdown()


def test_a_worker_that_is_replaced_sends_its_devices_back_slowly(mortal: Farm) -> None:
    with clients(mortal, 4) as there:
        os.kill(mortal.pid, signal.SIGHUP)
        assert [client.code() for client in there] == [4100] * 4
        until(lambda: list(mortal.events("reload.done")), "both workers are new ones")
    with Client(mortal) as client:
        assert client.subscribe("news") == {}


def test_a_reload_reads_the_applications_anew_and_is_refused_if_it_cannot(mortal: Farm) -> None:
    file = Path(mortal.settings["pusher.apps"])
    before = mortal.router_pid()
    with Client(mortal) as client:
        file.write_text(json.dumps({"applications": [APP, APP]}))
        os.kill(mortal.pid, signal.SIGHUP)
        until(lambda: list(mortal.events("reload.refused")), "it says that it cannot be")
        assert "two have the" in next(mortal.events("reload.refused"))["why"]
        assert client.subscribe("news") == {}
        assert call(mortal, "GET", "/channels").status == 200
        assert mortal.router_pid() == before
        file.write_text(json.dumps({"applications": [APP | {"secret": "another"}]}))
        os.kill(mortal.pid, signal.SIGHUP)
        assert client.code() == 4100
        until(lambda: list(mortal.events("reload.done")), "all processes are new ones")
    assert call(mortal, "GET", "/channels").status == 401
    with Client(mortal) as client:
        assert client.subscribe("private-news", secret="another") == {}


# ---------------------------------------------------------------------- channels


def test_an_event_comes_once_to_every_subscriber_of_both_shards(farm: Farm) -> None:
    channel, other = new_name(), new_name()
    with clients(farm, 6) as there, Client(farm) as elsewhere, Client(farm, "other-key") as stranger:
        for client in there:
            client.subscribe(channel)
        elsewhere.subscribe(other)
        stranger.subscribe(channel)  # the same name, of another application
        trigger(farm, [channel, other], "news", {"n": 1})
        trigger(farm, channel, "news", {"n": 2}, socket_id=there[0].socket_id)
        trigger(farm, channel, "news", {"n": 3})
        for client in there:
            expected = [1, 3] if client is there[0] else [1, 2, 3]
            assert [client.expect("news", channel)["n"] for _ in expected] == expected
        assert elsewhere.expect("news", other) == {"n": 1}
        nothing_before_now(farm, other, elsewhere)
        stranger.send("pusher:ping")
        stranger.expect("pusher:pong")


def test_who_has_unsubscribed_hears_nothing(farm: Farm) -> None:
    channel, other = new_name(), new_name()
    with Client(farm) as client:
        client.subscribe(channel)
        client.subscribe(other)
        client.send("pusher:unsubscribe", {"channel": channel})
        client.send("pusher:ping")
        client.expect("pusher:pong")
        trigger(farm, channel, "news", 1)
        nothing_before_now(farm, other, client)
        client.subscribe(channel)
        nothing_before_now(farm, channel, client)


def test_a_private_channel_lets_in_who_is_vouched_for(farm: Farm) -> None:
    channel = new_name("private-")
    with Client(farm) as client:
        client.send("pusher:subscribe", {"channel": channel, "auth": f"{KEY}:{signed('x')}"})
        told = client.expect("pusher:subscription_error", channel)
        assert (told["type"], told["status"]) == ("AuthError", 401)
        client.subscribe(channel)
        nothing_before_now(farm, channel, client)


def test_a_subscriber_that_does_not_read_is_in_nobodys_way(tmp_path: Path) -> None:
    settings = with_apps(tmp_path) | {"worker.write_buffer_bytes": 65_536}
    channel, text = new_name(), "x" * 10_000
    with running_farm(tmp_path / "data", settings, workers=1) as farm, Client(farm) as reads:
        lazy = Client(farm, receive_buffer=4096)
        for client in (reads, lazy):
            client.subscribe(channel)
        batch = [{"name": "long", "channel": channel, "data": json.dumps(text)}] * 10
        for _ in range(200):
            assert call(farm, "POST", "/batch_events", {"batch": batch}).status == 200
            assert all(reads.expect("long", channel) == text for _ in batch)
            if farm.counter("slow_closed"):
                break
        until(lambda: farm.counter("slow_closed") == 1, "the one that does not read is closed")
        nothing_before_now(farm, channel, reads)
        lazy.socket.shutdown()


def test_encrypted_data_is_handed_on_as_it_is(farm: Farm) -> None:
    channel = new_name("private-encrypted-")
    with Client(farm) as client:
        client.subscribe(channel)
        trigger(farm, channel, "secret", {"nonce": "AAAA", "ciphertext": "BBBB"})
        assert client.expect("secret", channel) == {"nonce": "AAAA", "ciphertext": "BBBB"}


def test_client_events_go_to_the_others_on_both_shards(farm: Farm) -> None:
    channel = new_name("private-")
    with clients(farm, 4) as there:
        for client in there:
            client.subscribe(channel)
        there[0].send("client-moved", {"x": 1}, channel)
        for client in there[1:]:
            assert client.expect("client-moved", channel) == {"x": 1}
        nothing_before_now(farm, channel, *there)


def test_too_many_client_events_are_rejected_and_no_more(farm: Farm) -> None:
    channel = new_name("private-")
    with Client(farm) as client:
        client.subscribe(channel)
        for _ in range(200):
            client.send("client-moved", {"x": 1}, channel)
        assert client.expect("pusher:error")["code"] == 4301
        client.send("pusher:ping")
        while client.event()["event"] == "pusher:error":
            pass


def test_a_cache_channel_tells_the_last_event_to_who_comes_later(farm: Farm) -> None:
    channel = new_name("private-cache-")
    with clients(farm, 4) as there:
        for client in there[:2]:
            client.subscribe(channel)
            client.expect("pusher:cache_miss", channel)
        trigger(farm, channel, "price", {"is": 1})
        trigger(farm, channel, "price", {"is": 2})
        for client in there[:2]:
            assert [client.expect("price", channel)["is"] for _ in range(2)] == [1, 2]
        there[0].send("client-moved", {}, channel)
        there[1].expect("client-moved", channel)
        for client in there[2:]:
            client.subscribe(channel)
            assert client.expect("price", channel) == {"is": 2}


def test_who_comes_while_events_do_hears_each_once_and_in_order(farm: Farm) -> None:
    channel = new_name("cache-")
    number = itertools.count()
    stopped = threading.Event()

    def send() -> None:
        while not stopped.is_set():
            events = [{"name": "price", "channel": channel, "data": str(next(number))} for _ in range(10)]
            assert call(farm, "POST", "/batch_events", {"batch": events}).status == 200

    def come_and_go(client: Client) -> None:
        for _ in range(ROUNDS):
            client.subscribe(channel)
            first = client.expect("price", channel)
            assert [client.expect("price", channel) for _ in range(15)] == list(range(first + 1, first + 16))
            client.send("pusher:unsubscribe", {"channel": channel})
            client.send("pusher:ping", {})
            while client.event()["event"] != "pusher:pong":
                pass

    with clients(farm, CLIENTS) as there, ThreadPoolExecutor(CLIENTS + 1) as threads:
        trigger(farm, channel, "price", next(number))
        sender = threads.submit(send)
        try:
            for done in [threads.submit(come_and_go, client) for client in there]:
                done.result()
        finally:
            stopped.set()
        sender.result()


def test_a_last_event_outlives_the_router(mortal: Farm) -> None:
    channel = new_name("cache-")
    trigger(mortal, channel, "price", {"is": 1})
    os.kill(mortal.router_pid(), signal.SIGKILL)
    _router_is_another(mortal)
    with Client(mortal) as client:
        client.subscribe(channel)
        assert client.expect("price", channel) == {"is": 1}


# ---------------------------------------------------------------------- users


def test_a_user_hears_what_is_sent_to_him_wherever_he_is(farm: Farm) -> None:
    user = new_name("user ")
    channel = f"#server-to-user-{user}"
    with clients(farm, 3) as there, Client(farm) as stranger:
        for client in there:
            client.sign_in(user)
        there[0].subscribe(channel)
        there[2].subscribe(channel)
        stranger.send("pusher:subscribe", {"channel": channel})
        assert stranger.expect("pusher:subscription_error", channel)["status"] == 401
        trigger(farm, channel, "hello", 1)
        for client in (there[0], there[2]):
            assert client.expect("hello", channel) == 1
        for client in (there[1], stranger):
            client.send("pusher:ping")
            client.expect("pusher:pong")


def test_a_users_connections_are_closed_and_nobody_elses(farm: Farm) -> None:
    user = new_name()
    with clients(farm, 4) as there, Client(farm) as stranger:
        for client in there:
            client.sign_in(user)
        there[0].subscribe(f"#server-to-user-{user}")
        stranger.sign_in(new_name())
        answer = call(farm, "POST", f"/users/{user}/terminate_connections", {})
        assert (answer.status, answer.json()) == (200, {})
        for client in there:
            assert 4000 <= client.code() < 4100  # pusher-js does not come back by itself
        stranger.send("pusher:ping")
        stranger.expect("pusher:pong")


def test_a_watchlist_tells_of_users_on_both_shards(farm: Farm) -> None:
    watcher, friend, stranger = new_name("a"), new_name("b"), new_name("c")
    with clients(farm, 3) as there:
        far, near, other = there[-1], there[0], there[1]
        near.sign_in(friend)
        far.sign_in(watcher, watchlist=[friend, stranger])
        told = far.expect("pusher_internal:watchlist_events")["events"]
        assert told == [{"name": "online", "user_ids": [friend]}, {"name": "offline", "user_ids": [stranger]}]
        other.sign_in(stranger)
        assert far.expect("pusher_internal:watchlist_events")["events"] == [{"name": "online", "user_ids": [stranger]}]
        near.close()
        assert far.expect("pusher_internal:watchlist_events")["events"] == [{"name": "offline", "user_ids": [friend]}]
        assert not [name for name in call(farm, "GET", "/channels").json()["channels"] if name.startswith("#")]


# ---------------------------------------------------------------------- presence


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


def _router_is_another(farm: Farm) -> None:
    """Wait for the router that follows on one that was killed."""
    until(lambda: list(farm.events("process.died")), "the supervisor has seen it")
    farm.wait_healthy()


def _survivors(there: Sequence[C]) -> tuple[list[C], list[C]]:
    """Who of these is still connected, and who is not, whatever there is to be read of them."""
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
        _router_is_another(mortal)
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
        _router_is_another(mortal)
        assert until(lambda: count()["occupied"], "the channel is known again")
        for shard in (0, 1):
            os.kill(mortal.worker_pid(shard), signal.SIGKILL)
        until(lambda: not _survivors(there)[0], "all connections have gone")
        mortal.wait_healthy()
        until(lambda: count()["occupied"] is False, "the channel is empty")


class Witness(Client):
    """A member that keeps account of who it was told is there."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm)
        self.view: set[str] = set()

    def enter(self, channel: str, user: str) -> list[str]:
        there = super().enter(channel, user)
        self.view = set(there)
        return there

    def look(self, channel: str, mark: str) -> None:
        """Hear everything up to a mark. Nobody comes who is there, nor leaves who is not."""
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
                stack.callback(_drop, client)
                client.enter(channel, f"user{chance.randrange(12)}")
                there.append(client)
            for _ in range(4):
                there.pop(chance.randrange(len(there))).close()
        mortal.wait_healthy()
        until(agreed, "all know the same")
        nothing_before_now(mortal, channel, *there)


# ---------------------------------------------------------------------- MicroNotifier


class Migrated(Farm):
    """A farm that is started with MicroNotifier's configuration."""

    def arguments(self) -> list[str]:
        file = self.data.parent / "config.json"
        redis = {"address": "", "password": "", "database": 0}
        apps = [{"name": "test", "key": KEY, "secret": SECRET}]
        file.write_text(json.dumps({"host": "localhost", "port": 8111, "applications": apps, "redis": redis}))
        return [*super().arguments(), "--micronotifier-config", str(file)]


def test_a_farm_from_micronotifiers_configuration(tmp_path: Path) -> None:
    farm = Migrated(tmp_path / "data", {"pusher.unsigned": True}, workers=1)
    try:
        farm.start()
        with Client(farm) as client:
            client.subscribe("news")
            body = json.dumps({"name": "hello", "channels": ["news"], "data": '"world"'}).encode()
            answer = curl("--data-binary", "@-", farm.url("/apps/test/events"), stdin=body)
            assert answer.status == 200, answer
            assert client.expect("hello", "news") == "world"
    except BaseException:
        farm.kill()
        raise
    farm.stop()
