"""Nothing is lost and nothing comes twice: devices of gopush2 that reconnect from a message ID while messages come and
processes die."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websocket
from support.farm_fixture import SOON_S, Farm, running_farm
from support.gopush2 import CRASH, ON, Device, Gone, new_key, push
from support.kills import Accepted, kill_all, kill_each, more

SETTINGS = (
    ON
    | CRASH
    | {"gopush2.auth": False, "gopush2.max_stored_message": 10_000}
    | {"store.log_limit": 10_000, "store.log_bytes": 2**24}
)
DEVICES = 6
LARGE = 65_000
"""Characters of a message."""
MANY = 100
"""So large messages, which together are more than the kernel holds for a connection."""
GONE = (Gone, OSError, websocket.WebSocketException)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("gopush2") / "data", SETTINGS) as running:
        yield running


class AppServer:
    """Sends messages with IDs from 1 on until it is stopped; one that was not answered is sent again."""

    def __init__(self, farm: Farm, key: str) -> None:
        self._farm = farm
        self._path = f"/pub?key={key}&mid="
        self.accepted = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = None
        while not self._stop.is_set():
            mid, again = self.accepted + 1, False
            while True:
                try:
                    connection = connection or http.client.HTTPConnection("127.0.0.1", self._farm.router_port, 5)
                    connection.request("POST", f"{self._path}{mid}", f"message {mid}")
                    ret = json.loads(connection.getresponse().read())["ret"]
                except (OSError, http.client.HTTPException):
                    connection, again = None, True
                    time.sleep(0.02)
                    continue
                if ret == 0 or (ret == 5 and again):  # 5: it was stored, and the answer was lost
                    break
                assert ret == 5, ret
                again = True
            self.accepted = mid

    def stop(self) -> int:
        """Returns: the last ID."""
        self._stop.set()
        self._thread.join()
        return self.accepted


class Follower:
    """A device that comes and goes, and always asks for what follows the last message that it had."""

    def __init__(self, farm: Farm, key: str, number: int, stays: bool) -> None:
        self._farm = farm
        self._key = key
        self._chance = random.Random(number)
        self._stays = stays
        self.mids = [0]
        self.connections = 0
        self.fault = ""
        self.last: int | None = None  # where it ends
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not (self.fault or self._done):
            try:
                with Device(self._farm, self._key, self.mids[-1]) as device:
                    self.connections += 1
                    self._read(device, 10**9 if self._stays else self._chance.randrange(1, 40))
            except GONE:
                time.sleep(0.01)

    @property
    def _done(self) -> bool:
        return self.last is not None and self.mids[-1] >= self.last

    def _read(self, device: Device, most: int) -> None:
        device.socket.settimeout(0.2)
        for _ in range(most):
            if self._done:
                return
            try:
                message = device.message()
            except websocket.WebSocketTimeoutException:
                continue
            if device.mid != self.mids[-1] + 1 or message != f"message {device.mid}":
                self.fault = f"{message!r} with ID {device.mid} behind {self.mids[-1]}"
                return
            self.mids.append(device.mid)

    def ended(self, last: int) -> bool:
        """Whether it has all up to this one."""
        self.last = last
        self._thread.join(SOON_S)
        return not self._thread.is_alive()


def follow(farm: Farm, act: Callable[[Accepted], None]) -> None:
    """Devices come and go, and messages come, while something is done. act: is given what tells how many were sent."""
    key = new_key()
    with Device(farm, key):  # creates the channel
        server = AppServer(farm, key)
    followers = [Follower(farm, key, number, number % 3 == 0) for number in range(DEVICES)]
    try:
        act(lambda: server.accepted)
    finally:
        last = server.stop()
        ended = [follower.ended(last) for follower in followers]
    assert [follower.fault for follower in followers] == [""] * DEVICES
    assert ended == [True] * DEVICES, [(follower.mids[-1], last) for follower in followers]
    assert all(follower.connections > 1 for follower in followers if not follower._stays)


def test_devices_that_come_and_go_miss_nothing(farm: Farm) -> None:
    follow(farm, lambda accepted: more(accepted, 600))


def test_a_worker_and_the_router_are_killed(farm: Farm) -> None:
    follow(farm, lambda accepted: kill_each(farm, accepted))


def test_the_whole_farm_is_killed_and_started_again(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", SETTINGS) as farm:
        follow(farm, lambda accepted: kill_all(farm, accepted))


def test_a_slow_reader_gets_all_that_is_stored_and_what_comes_meanwhile(farm: Farm) -> None:
    """More than the kernel and the worker hold for one connection: it is sent as it is read."""
    key = new_key()
    sent = [f"{mid} ".ljust(LARGE, "x") for mid in range(1, MANY + 6)]
    with Device(farm, key):
        for mid, message in enumerate(sent[:MANY], 1):
            push(farm, key, message, mid)
    with Device(farm, key, receive_buffer=8192) as device, Device(farm, key, MANY) as other:
        got = [device.message()]
        for mid, message in enumerate(sent[MANY:], MANY + 1):
            push(farm, key, message, mid)
            assert other.message() == message
            got.append(device.message())
        while len(got) < len(sent):
            time.sleep(0.01)
            got.append(device.message())
        assert got == sent
        device.beat()
