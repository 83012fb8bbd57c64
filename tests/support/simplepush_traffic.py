"""SimplePush devices and app servers that go on while something is done to their farm.

What every push was answered is kept, and what every device received and acknowledged. However a test ends, one thing
must hold: the newest version of a channel that was answered 200 or 202 has been acknowledged, or is sent to the device
when it connects again.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import h11
import trio
import trio_websocket

from support.farm_fixture import Farm, soon

DEVICES = 40
PUSHERS = 4
CHANNELS = 2
SETTINGS = {
    "link.lease": 2,
    "farm.restart_max": 0.1,  # what is killed often is started again as fast as what is killed once
    "endpoint.delivery_timeout": 0.5,
    "simplepush.min_ping_interval": 0,
    "simplepush.hello_timeout": 0,  # a hello without an answer must not be helped by its deadline
}
Socket: TypeAlias = trio_websocket.WebSocketConnection


@dataclass
class Connection:
    """One connection of a device."""

    received: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    code: int | None = None
    """The close code, once it has ended."""
    ended: float = 0.0


@dataclass
class Channel:
    """One channel, and what became of its pushes."""

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
        self.newest: dict[str, int] = {}

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
        """Send hello on a fresh connection and keep what waited, without acknowledging it."""
        self.acks = False
        await self._converse(self._until_pong)
        self.newest = {name: versions[-1] for name, versions in self.connections[-1].received.items()}

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
            await self._received(socket, connection, json.loads(await socket.get_message()))

    async def _until_pong(self, socket: Socket, connection: Connection) -> None:
        await socket.send_message('{"messageType":"ping"}')
        while (message := json.loads(await socket.get_message())) != {}:
            await self._received(socket, connection, message)

    async def _register(self, socket: Socket) -> None:
        name = os.urandom(16).hex()
        await socket.send_message(json.dumps({"messageType": "register", "channelID": name}))
        reply = json.loads(await socket.get_message())
        assert reply["status"] == 200, reply
        self.channels[name] = Channel(name, reply["pushEndpoint"])

    async def _received(self, socket: Socket, connection: Connection, message: Any) -> None:
        assert message["messageType"] == "notification", message
        for update in message["updates"]:
            connection.received[update["channelID"]].append(update["version"])
        if self.acks:
            for update in message["updates"]:
                channel = self.channels[update["channelID"]]
                channel.acked = max(channel.acked, update["version"])
            await socket.send_message(json.dumps({"messageType": "ack", "updates": message["updates"]}))

    def received(self, name: str) -> set[int]:
        """Every version of a channel that it has received on any connection."""
        return {version for connection in self.connections for version in connection.received[name]}


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
    """Devices and app servers, and what became of every push."""

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
        """Every channel."""
        return [channel for device in self.devices for channel in device.channels.values()]

    async def start(self) -> None:
        """Returns when every device has what it needs and has received its first pushes."""
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
        await soon(self._all_have_received_the_newest, "every device has received the newest of every channel")
        for device in self.undisturbed():
            for channel in device.channels.values():
                delivered = {version for version, status in channel.pushes if status == 200}
                assert delivered <= device.received(channel.name), "answered 200, but the device has not received it"
        for device in self.devices:
            device.reconnects = False
        async with trio.open_nursery() as nursery:
            for device in self.devices:
                nursery.start_soon(device.flush)
        missing = [
            (channel.name, channel.accepted, channel.acked, device.newest.get(channel.name))
            for device in self.devices
            for channel in device.channels.values()
            if max(channel.acked, device.newest.get(channel.name, 0)) < channel.accepted
        ]
        assert not missing, f"lost: (channel, accepted, acked, delivered) {missing}"
        for device in self.devices:
            for connection in device.connections:
                for name, versions in connection.received.items():
                    unanswered = {version for version, status in device.channels[name].pushes if status == 0}
                    for before, after in pairwise(versions):
                        # A push that died with the router may have reached the device. The one before it is then the
                        # newest that was accepted, and is said again.
                        assert before < after or before in unanswered, f"twice or out of order: {versions}"

    def _all_have_received_the_newest(self) -> bool:
        return all(
            max(device.received(channel.name), default=0) >= channel.accepted
            for device in self.staying
            for channel in device.channels.values()
        )


def under_traffic(farm: Farm, act: Callable[[Traffic], Awaitable[None]]) -> None:
    """Do something to a farm while its devices are pushed to, and check what became of every push."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            traffic = Traffic(farm, nursery)
            await traffic.start()
            await act(traffic)
            await traffic.check()
            nursery.cancel_scope.cancel()

    trio.run(main)
