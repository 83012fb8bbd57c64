"""Nothing is lost and nothing comes twice: subscribers of push stream, in every mode, that come back with the position
that they have while messages come and processes die. A stream of channels of several routers may be sent again what it
had shortly before.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import websocket
from support.farm_fixture import SOON_S, Farm, running_farm
from support.kills import Accepted, kill_all, kill_each, more
from support.pushstream import CRASH, ON, Gone, Socket, Stream, new_channel, publish

from farm.worker.routes import Routes
from router.dialects.pushstream.protocol import channel_address

SETTINGS = ON | CRASH | {"store.log_limit": 100_000, "store.log_bytes": 33_554_432}
GONE = (Gone, OSError, EOFError, ValueError, http.client.HTTPException, websocket.WebSocketException)
SIZE = 3000
"""Characters of a message: who was away for a moment wants more than a page."""
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("pushstream") / "data", SETTINGS) as running:
        yield running


class Publisher:
    """Sends messages to its channels in turn until it is stopped; one whose answer was lost is sent again."""

    def __init__(self, farm: Farm, names: Sequence[str]) -> None:
        self._farm = farm
        self._names = names
        self.accepted = 0
        self.ids = dict.fromkeys(names, 0)  # the newest of each
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = None
        while not self._stop.is_set():
            name = self._names[self.accepted % len(self._names)]
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self._farm.router_port, timeout=5)
                connection.request("POST", f"/pub?id={name}", f"{self.accepted} ".ljust(SIZE, "x"))
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, ValueError, http.client.HTTPException):
                connection = None
                time.sleep(0.02)
                continue
            if answer.status != 200:
                time.sleep(0.02)
                continue
            self.accepted += 1
            self.ids[name] = told["published_messages"]

    def stop(self) -> dict[str, int]:
        """Returns: the newest IDs."""
        self._stop.set()
        self._thread.join()
        return self.ids


class Follower:
    """A subscriber of both channels that comes and goes, and asks for what follows the last message that it had."""

    rewinds = True
    """Whether it is sent again what it had shortly before, where its channels are of several routers."""

    def __init__(self, farm: Farm, names: tuple[str, str], number: int) -> None:
        self.farm = farm
        self.path = "/".join(names)
        self.had = dict.fromkeys(names, 0)
        self.place = (EPOCH, "0")
        self.visits = 0
        self.repeats = self.rewinds and len(farm.status()["routers"]) > 1
        self.fault = ""
        self.last: dict[str, int] | None = None  # where it ends
        self._chance = random.Random(number)
        self._stays = number % 3 == 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not (self.fault or self.done):
            self.visits += 1
            left = 10**9 if self._stays else self._chance.choice((1, self._chance.randrange(1, 60)))
            try:
                for messages in self.messages():
                    left -= any(list(map(self._take, messages)))
                    if self.fault or self.done:
                        return
                    if not left:
                        break
            except GONE:
                time.sleep(0.01)
            if not self._stays:
                time.sleep(self._chance.choice((0, 0, 0.3)))

    @property
    def done(self) -> bool:
        return self.last is not None and all(self.had[name] >= last for name, last in self.last.items())

    def _take(self, message: Any) -> bool:
        """Returns: whether it is a new one."""
        name, number = message["channel"], message["id"]
        self.place = (message["time"], message["tag"])
        if self.repeats and number <= self.had[name]:
            return False
        if number != self.had[name] + 1:
            self.fault = f"{number} of {name} behind {self.had[name]}"
        self.had[name] = number
        return True

    def messages(self) -> Iterator[list[Any]]:
        """Those of one visit, as many at once as the client has before it may end it."""
        raise NotImplementedError

    @property
    def arguments(self) -> str:
        return f"time={quote(self.place[0])}&tag={self.place[1]}"

    def ended(self) -> bool:
        """Whether it has all."""
        self._thread.join(SOON_S)
        return not self._thread.is_alive()


class OverWebSocket(Follower):
    def messages(self) -> Iterator[list[Any]]:
        with Socket(self.farm, f"ws/{self.path}?{self.arguments}") as socket:
            socket.socket.settimeout(1)
            for _ in count():
                yield [socket.message()]


class OfAnEventSource(Follower):
    last_id = ""

    def messages(self) -> Iterator[list[Any]]:
        known = {"Last_Event_ID": self.last_id} if self.last_id else {}
        with Stream(self.farm, f"ev/{self.path}" + ("" if known else f"?{self.arguments}"), **known) as stream:
            for _ in count():
                event = stream.event()
                self.last_id = event.id
                yield [event.message]


class OfAStream(Follower):
    def messages(self) -> Iterator[list[Any]]:
        with Stream(self.farm, f"sub/{self.path}?{self.arguments}") as stream:
            for _ in count():
                yield [stream.message()]


class ByLongPolls(Follower):
    rewinds = False
    headers: dict[str, str] | None = None

    def messages(self) -> Iterator[list[Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.farm.device_port, timeout=2)
        try:
            for _ in count():
                headers = self.headers or {"If-Modified-Since": EPOCH, "If-None-Match": "0"}
                connection.request("GET", f"/lp/{self.path}", headers=headers)
                answer = connection.getresponse()
                rest = answer.read().decode()
                place = (answer.getheader("Last-Modified"), answer.getheader("Etag"))
                found = []
                while rest:
                    message, end = json.JSONDecoder().raw_decode(rest)
                    rest = rest[end:].lstrip()
                    found.append(message)
                if place[0] is not None and place[1] is not None:
                    self.headers = {"If-Modified-Since": place[0], "If-None-Match": place[1]}
                yield found
        finally:
            connection.close()


KINDS = (OverWebSocket, OfAnEventSource, OfAStream, ByLongPolls)


def follow(farm: Farm, act: Callable[[Accepted], None], of_routers: bool = False) -> None:
    """Subscribers come and go, and messages come, while something is done. act: is given what tells how many came.
    of_routers: to channels of two routers, at the same time."""
    names = (new_channel(), new_channel())
    if of_routers:
        names = (owned(0), owned(1))
    publishers = [Publisher(farm, [name]) for name in names] if of_routers else [Publisher(farm, names)]
    followers = [kind(farm, names, number) for number, kind in enumerate(KINDS * 2)]
    try:
        act(lambda: sum(publisher.accepted for publisher in publishers))
    finally:
        last = {name: number for publisher in publishers for name, number in publisher.stop().items()}
        for follower in followers:
            follower.last = last
        for name in names:
            publish(farm, name, "so that none waits for more")
        ended = [follower.ended() for follower in followers]
    assert [follower.fault for follower in followers] == [""] * len(followers)
    assert ended == [True] * len(followers), [(follower.had, last) for follower in followers]


def test_subscribers_that_come_and_go_miss_nothing(farm: Farm) -> None:
    follow(farm, lambda accepted: more(accepted, 600))


def test_a_worker_and_the_router_are_killed(farm: Farm) -> None:
    follow(farm, lambda accepted: kill_each(farm, accepted))


def test_the_whole_farm_is_killed_and_started_again(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", SETTINGS) as farm:
        follow(farm, lambda accepted: kill_all(farm, accepted))


def owned(router: int) -> str:
    """A channel of this router of two."""
    return next(name for name in iter(new_channel, "") if Routes(2).owner(channel_address(name)) == router)


def test_channels_of_two_routers(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", SETTINGS | {"router.routers": 2}) as farm:
        follow(farm, lambda accepted: more(accepted, 600), True)
        follow(farm, lambda accepted: kill_each(farm, accepted), True)
