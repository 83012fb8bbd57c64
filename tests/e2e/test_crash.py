"""What an answer means, shown on real processes that die, stop, drain and are replaced under traffic.

A ledger keeps what every push was answered and what every device heard and acknowledged. However a test ends, one thing
must hold: the newest version of a channel that was answered 200 or 202 has been acknowledged, or is told to the device
when it says hello again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import h11
import pytest
import trio
import trio_websocket
import websocket
from support.farm_fixture import PATIENCE_S, Device, Farm, environ, push_many, put, running_farm, until

DEVICES = 40
PUSHERS = 4
CHANNELS = 2
RECOVERED_S = 5.0
"""A new router has the whole map within this time."""
SETTINGS = {
    "link.lease": 2,
    "farm.restart_max": 0.1,  # what is killed often is started again as fast as what is killed once
    "endpoint.delivery_timeout": 0.5,
    "simplepush.min_ping_interval": 0,
    "simplepush.hello_timeout": 0,  # a hello without an answer must not be helped by its deadline
}
_SOON_S = 3 * PATIENCE_S
T = TypeVar("T")
Socket: TypeAlias = trio_websocket.WebSocketConnection


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for every test after which it still runs."""
    with running_farm(tmp_path_factory.mktemp("shared") / "data", SETTINGS) as farm:
        yield farm


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """The shared farm, well again."""
    shared.wait_healthy()
    return shared


@pytest.fixture(scope="module")
def draining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that takes two seconds to let its devices go."""
    with running_farm(tmp_path_factory.mktemp("draining") / "data", SETTINGS | {"drain.seconds": 2}) as farm:
        yield farm


# ---------------------------------------------------------------------- traffic


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Something that blocks, while the traffic goes on."""
    return await trio.to_thread.run_sync(function, *arguments)


async def soon(found: Callable[[], object], what: str, details: Callable[[], object] = str) -> None:
    """Wait until something is true."""
    with trio.move_on_after(_SOON_S):
        while not found():
            await trio.sleep(0.02)
        return
    raise AssertionError(f"not within {_SOON_S:g} s: {what} {details()}")


@dataclass
class Connection:
    """One connection of a device."""

    heard: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    code: int | None = None
    """The close code, once it has ended."""
    ended: float = 0.0


@dataclass
class Channel:
    """One channel in the ledger."""

    name: str
    endpoint: str
    pushes: list[tuple[int, int]] = field(default_factory=list)
    """(version, status); 0 if the connection ended without an answer."""
    acked: int = 0

    @property
    def accepted(self) -> int:
        """The newest version that was answered 200 or 202."""
        return max((version for version, status in self.pushes if status in (200, 202)), default=0)


class Actor:
    """A device that connects again whenever it has lost its connection."""

    def __init__(self, farm: Farm, acks: bool, leaves: bool) -> None:
        self._farm = farm
        self.acks = acks
        self.leaves = leaves
        self.uaid = ""
        self.channels: dict[str, Channel] = {}
        self.connections: list[Connection] = []
        self.reconnects = True
        self.told: dict[str, int] = {}

    @property
    def online(self) -> bool:
        """Whether its newest connection has been answered its hello, and lasts."""
        return bool(self.connections) and not self.connections[-1].ended

    async def live(self) -> None:
        """Connect, listen, connect again."""
        while self.reconnects:
            await self.connect()
            await trio.sleep(0.05)

    async def connect(self) -> None:
        """One connection, from its beginning to its end. If there is none to be had, that is all right too."""
        await self._converse(self._listen)

    async def flush(self) -> None:
        """Say hello on a fresh connection and keep what waited, without acknowledging it."""
        self.acks = False
        await self._converse(self._until_pong)
        self.told = {name: versions[-1] for name, versions in self.connections[-1].heard.items()}

    async def _converse(self, conversation: Callable[[Socket, Connection], Awaitable[None]]) -> None:
        connection = Connection()
        async with trio.open_nursery() as nursery:
            try:
                socket = await trio_websocket.connect_websocket_url(nursery, self._farm.device_url)
            except (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed):
                return
            try:
                hello = {"messageType": "hello", "uaid": self.uaid, "channelIDs": list(self.channels)}
                await socket.send_message(json.dumps(hello))
                reply = json.loads(await socket.get_message())
                assert reply["status"] == 200, reply
                assert self.uaid in ("", reply["uaid"]), "the farm has forgotten a device"
                self.uaid = reply["uaid"]
                self.connections.append(connection)
                await conversation(socket, connection)
            except trio_websocket.ConnectionClosed as closed:
                connection.code = closed.reason.code if closed.reason is not None else None
            finally:
                connection.ended = time.monotonic()
                with trio.move_on_after(2) as scope:
                    scope.shield = True
                    await socket.aclose()
                nursery.cancel_scope.cancel()

    async def _listen(self, socket: Socket, connection: Connection) -> None:
        for _ in range(CHANNELS - len(self.channels)):
            await self._register(socket)
        if self.leaves:
            self.reconnects = False
            return
        while True:
            await self._heard(socket, connection, json.loads(await socket.get_message()))

    async def _until_pong(self, socket: Socket, connection: Connection) -> None:
        await socket.send_message('{"messageType":"ping"}')
        while (message := json.loads(await socket.get_message())) != {}:
            await self._heard(socket, connection, message)

    async def _register(self, socket: Socket) -> None:
        name = os.urandom(16).hex()
        await socket.send_message(json.dumps({"messageType": "register", "channelID": name}))
        reply = json.loads(await socket.get_message())
        assert reply["status"] == 200, reply
        self.channels[name] = Channel(name, reply["pushEndpoint"])

    async def _heard(self, socket: Socket, connection: Connection, message: Any) -> None:
        assert message["messageType"] == "notification", message
        for update in message["updates"]:
            connection.heard[update["channelID"]].append(update["version"])
        if self.acks:
            for update in message["updates"]:
                channel = self.channels[update["channelID"]]
                channel.acked = max(channel.acked, update["version"])
            await socket.send_message(json.dumps({"messageType": "ack", "updates": message["updates"]}))

    def heard(self, name: str) -> set[int]:
        """Every version of a channel that it has heard on any connection."""
        return {version for connection in self.connections for version in connection.heard[name]}


class AppServer:
    """A keep-alive connection on h11 that is opened again when it ends."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._stream: trio.SocketStream | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def put(self, endpoint: str, version: int) -> int:
        """Push. Returns: status, 0 if the connection ended without one."""
        body = b"version=%d" % version
        headers = [("Host", "push"), ("Content-Length", str(len(body)))]
        request = h11.Request(method="PUT", target=endpoint.removeprefix(self._farm.url("")), headers=headers)
        try:
            if self._stream is None:
                self._stream = await trio.open_tcp_stream("127.0.0.1", self._farm.router_port)
                self._http = h11.Connection(h11.CLIENT)
            parts = [self._http.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
            await self._stream.send_all(b"".join(part for part in parts if part))
            return await self._answer(self._stream)
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
            await self.hang_up()
            return 0

    async def _answer(self, stream: trio.SocketStream) -> int:
        status = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.ConnectionClosed):
                raise trio.BrokenResourceError
            elif isinstance(event, h11.EndOfMessage):
                if self._http.our_state is h11.MUST_CLOSE:
                    await self.hang_up()
                else:
                    self._http.start_next_cycle()
                return status

    async def hang_up(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)
            self._stream = None


class Traffic:
    """Devices and pushers, and the ledger of what became of every push."""

    def __init__(self, farm: Farm, nursery: trio.Nursery) -> None:
        self._farm = farm
        self.nursery = nursery
        self._pushers_left = PUSHERS
        self._stop = False
        # Most acknowledge; one in eight never does, and one in eight registers and goes away.
        self.devices = [Actor(farm, acks=number % 8 != 0, leaves=number % 8 == 1) for number in range(DEVICES)]

    @property
    def staying(self) -> list[Actor]:
        """The devices that are meant to be connected."""
        return [device for device in self.devices if not device.leaves]

    @property
    def channels(self) -> list[Channel]:
        """Every channel of the ledger."""
        return [channel for device in self.devices for channel in device.channels.values()]

    async def start(self) -> None:
        """Returns when every device has what it needs and has heard its first pushes."""
        for device in self.devices:
            self.nursery.start_soon(device.live)
        await soon(lambda: all(len(device.channels) == CHANNELS for device in self.devices), "all have registered")
        await soon(self.everybody_is_back, "all are connected")
        for number in range(PUSHERS):
            self.nursery.start_soon(self._push, self.channels[number::PUSHERS])
        await self.pushes_arrive()

    async def _push(self, channels: list[Channel]) -> None:
        server = AppServer(self._farm)
        version = 0
        while not self._stop:
            version += 1  # a channel has one pusher, so its versions go out in order
            for channel in channels:
                status = await server.put(channel.endpoint, version)
                assert status in (0, 200, 202, 503), status
                channel.pushes.append((version, status))
                await trio.sleep(0.002 if status in (200, 202) else 0.05)
        await server.hang_up()
        self._pushers_left -= 1

    def everybody_is_back(self) -> bool:
        """Whether every device that is meant to be connected has been answered its hello."""
        return all(device.online for device in self.staying)

    async def pushes_arrive(self) -> None:
        """Wait until a push that was sent from now on has been answered 200 on every channel of a connected device."""
        begun = {c.name: len(c.pushes) + 1 for device in self.staying for c in device.channels.values()}

        def waiting() -> list[object]:
            return [
                (c.name, c.pushes[-3:], [(x.code, x.ended) for x in device.connections])
                for device in self.staying
                for c in device.channels.values()
                if not any(status == 200 for _, status in c.pushes[begun[c.name] :])
            ]

        await soon(lambda: not waiting(), "pushes are answered 200 again", waiting)

    def undisturbed(self) -> list[Actor]:
        """Those that are still on their first connection."""
        return [device for device in self.staying if len(device.connections) == 1 and device.online]

    async def check(self) -> None:
        """Stop pushing, and see that nothing is missing and nothing came twice."""
        self._stop = True
        await soon(lambda: self._pushers_left == 0, "the last pushes are answered")
        await soon(self.everybody_is_back, "all are connected")
        await soon(self._all_have_heard_the_newest, "every connected device has heard the newest of every channel")
        for device in self.undisturbed():
            for channel in device.channels.values():
                told = {version for version, status in channel.pushes if status == 200}
                assert told <= device.heard(channel.name), "answered 200, but the device has not heard it"
        for device in self.devices:
            device.reconnects = False
        async with trio.open_nursery() as nursery:
            for device in self.devices:
                nursery.start_soon(device.flush)
        missing = [
            (channel.name, channel.accepted, channel.acked, device.told.get(channel.name))
            for device in self.devices
            for channel in device.channels.values()
            if max(channel.acked, device.told.get(channel.name, 0)) < channel.accepted
        ]
        assert not missing, f"lost: (channel, accepted, acked, told) {missing}"
        for device in self.devices:
            for connection in device.connections:
                for name, versions in connection.heard.items():
                    unanswered = {version for version, status in device.channels[name].pushes if status == 0}
                    for before, after in pairwise(versions):
                        # A push that died with the router may have reached the device. The one before it is then the
                        # newest that was accepted, and is said again.
                        assert before < after or before in unanswered, f"twice or out of order: {versions}"

    def _all_have_heard_the_newest(self) -> bool:
        return all(
            max(device.heard(channel.name), default=0) >= channel.accepted
            for device in self.staying
            for channel in device.channels.values()
        )


def under_traffic(farm: Farm, act: Callable[[Traffic], Awaitable[None]]) -> None:
    """Do something to a farm while its devices are pushed to, and check the ledger in the end."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            traffic = Traffic(farm, nursery)
            await traffic.start()
            await act(traffic)
            await traffic.check()
            nursery.cancel_scope.cancel()

    trio.run(main)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does not run for a while, but for one that has been killed meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def on_shard(farm: Farm, shard: int, uaid: str, channel: str) -> Device:
    """A device of this name on the other one of the two workers, which is the only one that runs."""
    while True:
        try:
            device = Device(farm, timeout=0.5)
        except (OSError, websocket.WebSocketException):
            continue  # the kernel has given it to the one that does not run
        device.socket.settimeout(PATIENCE_S)
        device.hello(uaid, (channel,))
        return device


def test_of_two_connections_the_younger_stays_though_a_new_router_hears_of_the_older_first(farm: Farm) -> None:
    def held() -> list[int]:
        return [worker.get("devices", 0) for worker in farm.status()["workers"]]

    until(lambda: held() == [0, 0], "nobody is there")
    with Device(farm) as older:
        older.hello()
        channel, endpoint = older.register()
        until(lambda: sum(held()) == 1, "it is there")
        one = held().index(1)
        pids = [farm.worker_pid(shard) for shard in range(2)]
        with contextlib.ExitStack() as until_the_older_is_announced:
            with stopped(pids[one]):
                until(lambda: sum(held()) == 0, "its lease has run out, so it will not be told of a younger one")
                younger = on_shard(farm, 1 - one, older.uaid, channel)
                older.send({})  # what was read last does not make it the younger
                router = farm.router_pid()
                until_the_older_is_announced.enter_context(stopped(pids[1 - one]))
                os.kill(router, signal.SIGKILL)
                until(lambda: farm.router_pid() not in (None, router), "there is a new router")
            until(lambda: sum(held()) == 1, "it knows the older one")
        with younger:
            assert older.close_code() == 1001
            assert put(endpoint, 7) == 200
            assert younger.updates() == [(channel, 7)]
            younger.ack((channel, 7))
            younger.settle()


# ---------------------------------------------------------------------- kill -9


def test_kill_a_worker(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        await in_thread(until, lambda: farm.status()["connections"] == len(traffic.staying), "a beat of both workers")
        before = (await in_thread(farm.status))["workers"]
        os.kill(before[0]["pid"], signal.SIGKILL)
        await soon(lambda: len(traffic.undisturbed()) == before[1]["connections"], "its devices notice")
        await in_thread(farm.wait_healthy)
        await soon(traffic.everybody_is_back, "they are back")
        await traffic.pushes_arrive()
        after = (await in_thread(farm.status))["workers"]
        assert after[0]["pid"] != before[0]["pid"]
        assert after[1]["pid"] == before[1]["pid"]
        # Nobody else has lost a connection. That they have heard every push answered 200 is part of the last check.
        assert len(traffic.undisturbed()) == before[1]["connections"]

    under_traffic(farm, act)


def test_kill_the_router(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        old = await in_thread(farm.router_pid)
        os.kill(old, signal.SIGKILL)
        killed = time.monotonic()
        await in_thread(until, lambda: farm.router_pid() not in (None, old), "there is a new router")
        await traffic.pushes_arrive()
        assert time.monotonic() - killed < RECOVERED_S
        assert traffic.undisturbed() == traffic.staying
        assert await in_thread(farm.healthy)

    under_traffic(farm, act)


def test_kill_the_router_and_a_worker_again_and_again(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        for shard in (0, 1, 0):
            status = await in_thread(farm.wait_healthy)
            os.kill(status["router"]["pid"], signal.SIGKILL)
            os.kill(status["workers"][shard]["pid"], signal.SIGKILL)
            await in_thread(until, lambda old=status: farm.router_pid() not in (None, old["router"]["pid"]), "a router")
        await in_thread(farm.wait_healthy)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()

    under_traffic(farm, act)


def test_hellos_while_the_router_dies_again_and_again(farm: Farm) -> None:
    async def main() -> None:
        devices = [Actor(farm, acks=True, leaves=True) for _ in range(DEVICES)]
        running = True
        left = DEVICES

        async def come_and_go(device: Actor) -> None:
            nonlocal left
            await device.live()
            while running:
                await device.flush()
                # Where the kernel resets a connection in its handshake, trying again is the client's part.
                await trio.sleep(0.01)
            left -= 1

        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(come_and_go, device)
            for _ in range(5):
                counts = {device.uaid: len(device.connections) for device in devices}
                await soon(
                    lambda counts=counts: all(len(d.connections) > counts.get(d.uaid, 0) + 2 for d in devices),
                    "all go on",
                )
                pid = await in_thread(farm.router_pid)
                os.kill(pid, signal.SIGKILL)
                await in_thread(until, lambda pid=pid: farm.router_pid() not in (None, pid), "there is a new router")
            running = False
            await soon(lambda: not left, "every hello is answered")

    trio.run(main)


def test_kill_everything(tmp_path: Path) -> None:
    async def act(traffic: Traffic) -> None:
        for _ in range(2):
            await in_thread(farm.kill)
            await in_thread(farm.start)
            await soon(traffic.everybody_is_back, "all are back")
            await traffic.pushes_arrive()

    with running_farm(tmp_path / "data", SETTINGS) as farm:
        under_traffic(farm, act)


def test_the_supervisor_alone_is_killed(tmp_path: Path) -> None:
    async def act(traffic: Traffic) -> None:
        os.kill(farm.pid, signal.SIGKILL)
        assert await in_thread(farm.wait_ended) == -signal.SIGKILL  # what it had started ends by itself
        await in_thread(farm.start)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()

    with running_farm(tmp_path / "data", SETTINGS) as farm:
        under_traffic(farm, act)


# ---------------------------------------------------------------------- stopped, slow, moved


def test_a_worker_stops_for_ten_seconds(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        row = (await in_thread(farm.status))["workers"][0]
        with stopped(row["pid"]):
            began = trio.current_time()
            await in_thread(until, lambda: not farm.healthy(), "the farm says that a worker is missing")
            mark = {channel.name: len(channel.pushes) for channel in traffic.channels}
            await trio.sleep_until(began + 10)
            answers = {
                channel.name: {status for _, status in channel.pushes[mark[channel.name] :]}
                for channel in traffic.channels
            }
            staying = {name for device in traffic.staying for name in device.channels}
            # Those of the stopped worker are stored for later, the others go on.
            assert {tuple(answers[name]) for name in staying} == {(200,), (202,)}
        await in_thread(farm.wait_healthy)
        await traffic.pushes_arrive()
        assert (await in_thread(farm.status))["workers"][0]["pid"] == row["pid"]
        assert traffic.undisturbed() == traffic.staying

    under_traffic(farm, act)


def test_the_router_stops_for_three_leases(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        pid = await in_thread(farm.router_pid)
        with stopped(pid):
            began = trio.current_time()
            await in_thread(until, lambda: not farm.healthy(), "the farm says that its router is missing")
            await trio.sleep_until(began + 3 * SETTINGS["link.lease"])
        await in_thread(farm.wait_healthy)
        await soon(traffic.everybody_is_back, "who was away and said hello meanwhile is answered")
        await traffic.pushes_arrive()
        assert await in_thread(farm.router_pid) == pid
        assert traffic.undisturbed() == traffic.staying

    under_traffic(farm, act)


def accept_queue(port: int) -> int:
    """Connections that wait to be accepted on this port: of a listening socket, rx_queue counts them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = f"0100007F:{port:04X}"
    return sum(int(row[4].partition(":")[2], 16) for row in rows if row[1] == local and row[3] == "0A")


def test_who_waits_to_be_accepted_outlives_the_worker(farm: Farm) -> None:
    async def main() -> None:
        pid = await in_thread(farm.worker_pid, 0)
        devices = [Actor(farm, acks=True, leaves=False) for _ in range(DEVICES)]
        async with trio.open_nursery() as nursery:
            with stopped(pid):
                for device in devices:
                    nursery.start_soon(device.connect)

                def all_in() -> bool:
                    return sum(d.online for d in devices) + accept_queue(farm.device_port) == DEVICES

                await soon(all_in, "each is connected or waits")
                assert accept_queue(farm.device_port) > 0
                os.kill(pid, signal.SIGKILL)
                await soon(lambda: all(device.online for device in devices), "all are connected")
            assert all(len(device.connections) == 1 for device in devices)
            nursery.cancel_scope.cancel()

    trio.run(main)
    farm.wait_healthy()


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_device_that_stops_reading(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        pids = await in_thread(lambda: [row["pid"] for row in farm.status()["workers"]] + [farm.router_pid()])
        before = {pid: resident(pid) for pid in pids}
        options = {"sockopt": [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]}
        slow = await in_thread(lambda: Device(farm, **options))
        await in_thread(slow.hello)
        channels = dict([await in_thread(slow.register) for _ in range(5)])
        closed = await in_thread(farm.counter, "slow_closed")
        ledger: dict[str, list[tuple[int, int]]] = {name: [] for name in channels}

        def flood(base: int) -> None:
            pairs = [(name, base + number) for number in range(40) for name in channels]
            pushes = [{"endpoint": channels[name], "version": v, "data": "x" * 4096} for name, v in pairs]
            for (name, version), status in zip(pairs, push_many(farm, pushes), strict=True):
                ledger[name].append((version, status))

        base = 1
        while await in_thread(farm.counter, "slow_closed") == closed:
            assert base < 10_000, "a device that does not read is never closed"
            await in_thread(flood, base)
            base += 40
        assert {status for pushes in ledger.values() for _, status in pushes} == {200, 202}
        assert max(resident(pid) - before[pid] for pid in pids) < 32 * 2**20
        assert traffic.undisturbed() == traffic.staying
        await in_thread(slow.socket.shutdown)

        again = await in_thread(Device, farm)
        await in_thread(again.hello, slow.uaid, tuple(channels))
        assert again.uaid == slow.uaid
        told = dict(await in_thread(again.updates))
        assert told == {name: max(version for version, _ in pushes) for name, pushes in ledger.items()}
        await in_thread(again.socket.shutdown)

    under_traffic(farm, act)


def test_a_device_that_reads_too_late(tmp_path: Path) -> None:
    """Less waits for it than it may, but for longer than it may."""
    with running_farm(tmp_path / "data", {"worker.write_timeout": 1, "worker.write_buffer_bytes": 8_388_608}) as farm:
        slow = Device(farm, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        slow.hello()
        channel, endpoint = slow.register()
        pushes = [{"endpoint": endpoint, "version": 1, "data": "x" * 4096}] * 200
        until(lambda: 202 in push_many(farm, pushes), "what is written waits")
        until(lambda: farm.counter("slow_closed") == 1, "it is closed")
        slow.socket.shutdown()
        assert put(endpoint, 1000) == 202
        with Device(farm) as again:
            again.hello(slow.uaid)
            assert again.updates() == [(channel, 1000)]


def test_newer_connections_of_many_devices(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        devices = [device for device in traffic.staying if device.acks][:12]
        moved = (await in_thread(farm.status))["router"]["devices_moved"]
        for device in devices:
            device.reconnects = False
        for times in range(2, 7):
            for device in devices:
                traffic.nursery.start_soon(device.connect)
            await soon(lambda n=times: all(len(d.connections) == n for d in devices), "the newer are answered")
            await soon(lambda: all(c.ended for d in devices for c in d.connections[:-1]), "the older are closed")
            assert {c.code for d in devices for c in d.connections[:-1]} == {1001}
            await traffic.pushes_arrive()
            assert all(device.online for device in devices)
        # 60 times a newer connection: on the other shard as well as on the same one.
        assert 0 < (await in_thread(farm.status))["router"]["devices_moved"] - moved < 60

    under_traffic(farm, act)


# ---------------------------------------------------------------------- drain and reload


def command(farm: Farm, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    """`farm NAME` against a running farm."""
    line = [sys.executable, "-m", "farm", name, *more]
    return subprocess.run(line, env=environ(), cwd=farm.data, check=False, capture_output=True, text=True, timeout=60)


def test_farm_status(draining: Farm) -> None:
    port = str(draining.admin_port)
    shown = command(draining, "status", "--admin-port", port)
    assert shown.returncode == 0
    assert str(draining.worker_pid(0)) in shown.stdout
    assert str(draining.worker_pid(1)) in shown.stdout
    found = json.loads(command(draining, "status", "--json", "--admin-port", port).stdout)
    assert found["status"] == "ok"
    assert found["pid"] == draining.pid


def test_farm_reload(draining: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        before = await in_thread(draining.status)
        shards = [row["pid"] for row in before["workers"]]
        done: list[subprocess.CompletedProcess[str]] = []
        seen = []

        def replaced() -> bool:
            status = draining.status()
            seen.append([row["pid"] for row in status["workers"]])
            return not status["reloading"] and not set(seen[-1]) & set(shards)

        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                done.append(await in_thread(command, draining, "reload", "--data", str(draining.data)))

            nursery.start_soon(reload)
            await in_thread(until, replaced, "all processes are replaced")
        assert (done[0].returncode, done[0].stderr) == (0, "")
        assert done[0].stdout.startswith("reload: done after ")
        # One at a time: there was a moment with one new and one old.
        assert [pids for pids in seen if len(set(pids) & set(shards)) == 1]
        await in_thread(draining.wait_healthy)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()
        assert await in_thread(draining.router_pid) != before["router"]["pid"]
        replacements = [event["process_"] for event in draining.events("reload.replaced")]
        assert replacements == ["worker[0]", "worker[1]", "router"]
        assert not list(draining.events("process.died"))
        assert {connection.code for device in traffic.staying for connection in device.connections[:-1]} == {1001}
        # The fork server is a new one too; what is started from now on comes from there.
        os.kill(seen[-1][0], signal.SIGKILL)
        await in_thread(until, lambda: draining.worker_pid(0) not in (None, seen[-1][0]), "it is started again")
        await in_thread(draining.wait_healthy)

    under_traffic(draining, act)


def refuses(port: int) -> bool:
    """Whether nobody listens on this port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_farm_drain(draining: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        before = [len(device.connections) for device in traffic.staying]
        done: list[subprocess.CompletedProcess[str]] = []
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                done.append(await in_thread(command, draining, "drain", "--data", str(draining.data)))

            nursery.start_soon(drain)
            await in_thread(until, lambda: refuses(draining.device_port), "new connections are refused")
            code, body = await in_thread(draining.admin, "/health")
            assert (code, json.loads(body)["status"]) == (503, "draining")
        assert done[0].returncode == 0, done[0].stderr
        assert await in_thread(draining.wait_ended) == 0
        # It may take a moment until each has noticed; none can have come back.
        await soon(lambda: not any(device.online for device in traffic.staying), "all have been let go")
        assert [len(device.connections) for device in traffic.staying] == before
        ends = [device.connections[-1] for device in traffic.staying]
        assert {connection.code for connection in ends} == {1001}
        times = sorted(connection.ended for connection in ends)
        assert times[-1] - times[0] > 0.3 * draining.settings["drain.seconds"]
        await in_thread(draining.start)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()

    under_traffic(draining, act)


# ---------------------------------------------------------------------- starts that fail


def start_again(farm: Farm, **changes: object) -> subprocess.CompletedProcess[str]:
    """A second farm like this one, but for some options."""
    line = farm.arguments()
    for option, value in changes.items():
        line[line.index("--" + option.replace("_", "-")) + 1] = str(value)
    return subprocess.run(line, env=environ(), check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["device", "router", "admin"])
def test_a_port_that_is_taken(farm: Farm, tmp_path: Path, name: str) -> None:
    ports = {"device_port": 0, "router_port": 0, "admin_port": 0} | {f"{name}_port": getattr(farm, f"{name}_port")}
    failed = start_again(farm, data=tmp_path / "other", **ports)
    assert failed.returncode == 1
    lines = [line for line in failed.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert re.search(rf"listen\.{name}_port.*{ports[f'{name}_port']}", lines[0])


def test_a_data_folder_that_is_in_use(farm: Farm) -> None:
    failed = start_again(farm, device_port=0, router_port=0, admin_port=0)
    assert failed.returncode == 1
    lines = [line for line in failed.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert "data.dir" in lines[0]
    assert farm.healthy()


def test_commands_without_a_farm(farm: Farm, tmp_path: Path) -> None:
    for name in ("drain", "reload"):
        failed = command(farm, name, "--data", str(tmp_path))
        assert (failed.returncode, failed.stdout) == (1, "")
        assert str(tmp_path) in failed.stderr
