"""Presence over several hosts of which one is killed: its members are gone, once, and nobody else is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.admin_api import api
from support.farm_fixture import Farm, until
from support.hosts import across, running_hosts
from support.pusher import APP, Client, call, drop, members, new_name, trigger
from support.pusher_webhook_site import site

from router.common.partitions import partition
from router.dialects.pusher.protocol import channel_address

ROUTERS = 4
EVENTS = ["channel_occupied", "channel_vacated", "member_added", "member_removed"]


class Watcher(Client):
    """A device that keeps what it is told of the rooms that it is in."""

    def __init__(self, farm: Farm, user: str) -> None:
        super().__init__(farm)
        self.user = user
        self.seen: Counter[tuple[str, str, str]] = Counter()
        self.there: dict[str, set[str]] = {}

    def enter_all(self, rooms: list[str]) -> None:
        for room in rooms:
            self.there[room] = set(self._enter(room))

    def _enter(self, room: str) -> list[str]:
        """Others may come and go in the rooms before."""
        waiting: list[Any] = []
        expect, self.event = self.event, lambda: self._but(expect, room, waiting)  # type: ignore[method-assign]
        try:
            return self.enter(room, self.user)
        finally:
            self.event = expect  # type: ignore[method-assign]
            for found in waiting:
                self._note(found)

    def _but(self, event: Callable[[], Any], room: str, others: list[Any]) -> Any:
        while (found := event()).get("channel") != room:
            others.append(found)
        return found

    def _note(self, found: Any) -> None:
        name, room, data = found["event"].rpartition(":")[2], found.get("channel", ""), found["data"]
        if name == "member_added":
            assert data["user_id"] not in self.there[room]
            self.there[room].add(data["user_id"])
        elif name == "member_removed":
            self.there[room].remove(data["user_id"])
            self.seen[name, room, data["user_id"]] += 1
        else:
            self.seen[name, room, str(data)] += 1

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._note(self.event())


def rooms() -> list[str]:
    """One of each router."""
    found: dict[int, str] = {}
    while len(found) < ROUTERS:
        name = new_name("presence-")
        found.setdefault(partition(channel_address(str(APP["id"]), name)) % ROUTERS, name)
    return [found[number] for number in range(ROUTERS)]


def test_the_members_of_a_host_that_is_killed_are_gone_once_and_no_others(tmp_path: Path) -> None:
    with site() as there, ExitStack() as stack:
        apps = tmp_path / "apps.json"
        apps.write_text(json.dumps({"applications": [APP | {"webhooks": [{"url": there.url, "events": EVENTS}]}]}))
        hosts = stack.enter_context(running_hosts(tmp_path, 3, ROUTERS, {"pusher.apps": apps}))
        a, b, c = hosts.each
        every, only_there = rooms(), rooms()
        stays, both = Watcher(a, "stays"), Watcher(b, "both")
        dying = [Watcher(c, "both"), Watcher(c, "goes")]
        for device in (stays, both, *dying):
            stack.callback(drop, device)
            device.enter_all(every)
        dying[0].enter_all(only_there)
        for device in (stays, both):
            device.until(lambda device=device: all(device.there[room] == {"stays", "both", "goes"} for room in every))
        for room in every:
            assert members(across(c, b), room) == ["both", "goes", "stays"]
            for user in ("stays", "both", "goes"):
                until(lambda room=room, user=user: there.told(room, user) == ["member_added"], "told")
        for room in only_there:
            until(lambda room=room: there.told(room) == ["channel_occupied"], "told")
        for host in hosts.each:  # operators see all channels at any of them
            listed = {row["channel"]: row["subscribers"] for row in api(host, "GET", "/channels")[1]["channels"]}
            assert listed == dict.fromkeys(every, 4) | dict.fromkeys(only_there, 1)
        event = {"event": "test", "data": "2"}
        assert api(a, "POST", f"/channels/pusher/{every[3]}/events", event)[0] == 200
        for device in (stays, both):
            device.until(lambda device=device: device.seen["test", every[3], "2"] == 1)
        c.kill()
        for device in (stays, both):
            device.until(lambda device=device: all(device.there[room] == {"stays", "both"} for room in every))
        hosts.wait_divided(a, b)
        for room in only_there:
            until(lambda room=room: len(there.told(room)) > 1, "vacated")
            assert there.told(room) == ["channel_occupied", "channel_vacated"]
        for room in every:
            assert members(a, room) == members(b, room) == ["both", "stays"]
            until(lambda room=room: len(there.told(room, "goes")) > 1, "removed")
            trigger(a, room, "mark", "1")
            for device in (stays, both):
                device.until(lambda device=device, room=room: device.seen["mark", room, "1"] == 1)
                removed = {(room, user): n for (name, room, user), n in device.seen.items() if name == "member_removed"}
                assert removed == {(room, "goes"): 1 for room in every}
            assert there.told(room, "goes") == ["member_added", "member_removed"]
            assert [there.told(room, user) for user in ("stays", "both")] == [["member_added"]] * 2
            assert there.told(room) == ["channel_occupied"]
        assert call(b, "GET", "/channels").json()["channels"].keys() == set(every)
