"""Nothing is lost and nothing comes twice: subscribers of push stream, in every mode, that come back with the position
that they have while messages come and processes die.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import websocket
from support.farm_fixture import SOON_S, Farm, running_farm
from support.kills import Accepted, kill_all, kill_each, more
from support.pushstream import CRASH, ON, Gone, Socket, Stream, new_channel, publish

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
    """Sends messages to two channels in turn until it is stopped; one whose answer was lost is sent again."""

    def __init__(self, farm: Farm, names: tuple[str, str]) -> None:
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
            name = self._names[self.accepted % 2]
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

    def __init__(self, farm: Farm, names: tuple[str, str], number: int) -> None:
        self.farm = farm
        self.path = "/".join(names)
        self.had = dict.fromkeys(names, 0)
        self.place = (EPOCH, "0")
        self.visits = 0
        self.fault = ""
        self.last: dict[str, int] | None = None  # where it ends
        self._chance = random.Random(number)
        self._stays = number % 3 == 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not (self.fault or self.done):
            self.visits += 1
            try:
                for message in self.messages(10**9 if self._stays else self._chance.randrange(1, 60)):
                    self._take(message)
                    if self.fault or self.done:
                        return
            except GONE:
                time.sleep(0.01)
            if not self._stays:
                time.sleep(self._chance.choice((0, 0, 0.3)))

    @property
    def done(self) -> bool:
        return self.last is not None and all(self.had[name] >= last for name, last in self.last.items())

    def _take(self, message: Any) -> None:
        name, number = message["channel"], message["id"]
        if number != self.had[name] + 1:
            self.fault = f"{number} of {name} behind {self.had[name]}"
        self.had[name] = number
        self.place = (message["time"], message["tag"])

    def messages(self, most: int) -> Iterator[Any]:
        """Of one visit, so many at most."""
        raise NotImplementedError

    @property
    def arguments(self) -> str:
        return f"time={quote(self.place[0])}&tag={self.place[1]}"

    def ended(self) -> bool:
        """Whether it has all."""
        self._thread.join(SOON_S)
        return not self._thread.is_alive()


class OverWebSocket(Follower):
    def messages(self, most: int) -> Iterator[Any]:
        with Socket(self.farm, f"ws/{self.path}?{self.arguments}") as socket:
            socket.socket.settimeout(1)
            for _ in range(most):
                yield socket.message()


class OfAnEventSource(Follower):
    last_id = ""

    def messages(self, most: int) -> Iterator[Any]:
        known = {"Last_Event_ID": self.last_id} if self.last_id else {}
        with Stream(self.farm, f"ev/{self.path}" + ("" if known else f"?{self.arguments}"), **known) as stream:
            for _ in range(most):
                event = stream.event()
                self.last_id = event.id
                yield event.message


class OfAStream(Follower):
    def messages(self, most: int) -> Iterator[Any]:
        with Stream(self.farm, f"sub/{self.path}?{self.arguments}") as stream:
            for _ in range(most):
                yield stream.message()


class ByLongPolls(Follower):
    headers: dict[str, str] | None = None

    def messages(self, most: int) -> Iterator[Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.farm.device_port, timeout=2)
        try:
            for _ in range(most):
                headers = self.headers or {"If-Modified-Since": EPOCH, "If-None-Match": "0"}
                connection.request("GET", f"/lp/{self.path}", headers=headers)
                answer = connection.getresponse()
                rest = answer.read().decode()
                place = (answer.getheader("Last-Modified"), answer.getheader("Etag"))
                while rest:
                    message, end = json.JSONDecoder().raw_decode(rest)
                    rest = rest[end:].lstrip()
                    yield message
                if place[0] is not None and place[1] is not None:
                    self.headers = {"If-Modified-Since": place[0], "If-None-Match": place[1]}
        finally:
            connection.close()


KINDS = (OverWebSocket, OfAnEventSource, OfAStream, ByLongPolls)


def follow(farm: Farm, act: Callable[[Accepted], None]) -> None:
    """Subscribers come and go, and messages come, while something is done. act: is given what tells how many came."""
    names = (new_channel(), new_channel())
    publisher = Publisher(farm, names)
    followers = [kind(farm, names, number) for number, kind in enumerate(KINDS * 2)]
    try:
        act(lambda: publisher.accepted)
    finally:
        last = publisher.stop()
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
