"""One worker's sockets without its process, and a dialect as small as it can be, for the tests of the worker."""

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import websocket

from farm.dialects import (
    Call,
    Close,
    Dialect,
    Effects,
    Presence,
    Session,
    Subscribe,
    Subscribed,
    Subscription,
    Unsubscribe,
)
from farm.settings import WorkerOptions
from farm.transports.request import Request
from farm.worker.edge import PLAIN_EDGE, Edge
from farm.worker.routes import Routes
from farm.worker.sockets import Sockets
from router.common import messages as m
from router.common.auth_settings import AuthOptions
from router.common.client_address import Networks
from router.common.limit_settings import LimitOptions
from router.common.metrics import WorkerCounters
from router.common.poller import INPUT, Poller
from router.common.settings import Log
from support.common import Clock, settings_with
from support.pager import HELLO, Pager

DEVICES = "devices"
"""Whose broadcasts the devices follow."""
PATIENCE_S = 20
NO_PROXIES = Networks(())


NAME = "presence-room"
ROOM = m.channel_key("talk", "app", NAME)
LABEL = m.channel_label("talk", "app", NAME)
OTHER = b"o" * 16


class TalkSession(Session):
    """Does what its messages say: "join user", "join", "hide", "part", "publish", "call", "break"."""

    farewell = (4100, "come back later")
    channels: tuple[bytes, ...] = ()
    socket_id: str = ""

    def __init__(self, socket_id: str, where: str, members: int) -> None:
        self.socket_id = socket_id
        self.where = where
        self.members = members
        self.channels = ()

    def begun(self, now: float) -> Effects:
        yield self.socket_id.encode()
        if self.where == "/talk/join":
            yield from self.join(None)
        if self.where == "/talk/refused":
            yield Close(4001, "no such application")

    def join(self, user: str | None, hidden: bool = False) -> Effects:
        self.channels = (ROOM,)
        label = "" if hidden else LABEL
        return (Subscribe((Subscription(ROOM, label, user, f"info of {user}", self.members, hidden),)),)

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        command, _, user = message.decode().partition(" ")
        if command == "join":
            return (b"asked", *self.join(user or None))
        if command == "hide":
            return self.join(None, True)
        if command == "part":
            self.channels = ()
            return (Unsubscribe(ROOM), b"parted")
        if command == "break":
            return (b"" for _ in (1,) if 1 / 0) if user else (b"", self.nothing)  # type: ignore[attr-defined]
        if command == "publish":
            return (m.Publish(ROOM, "published", 0, ""),)
        if command == "call":
            return (Call(m.Invoke("talk", ROOM, b"take"), "take"),)
        return (message,)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        return (b"took " + payload,)

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        ((_, status, members, _),) = results
        if status != m.OK:
            self.channels = ()
        joined = f"joined {status} {json.dumps(members)}".encode()
        return (joined,)


class Talk(Dialect, Presence):
    """A dialect with channels and members, as small as it can be."""

    def __init__(self, members: int) -> None:
        self._members = members  # that a channel may have

    def subprotocol(self, offered: list[str]) -> str | None:
        return None

    def claims(self, first: bytes) -> bool:
        return True

    def opened(self, request: Request) -> TalkSession:
        return TalkSession(request.socket_id, request.path, self._members)

    @property
    def presence(self) -> Presence:
        return self

    def member_added(self, channel: str, user: str, info: str) -> bytes:
        return f"{channel} + {user} ({info})".encode()

    def member_removed(self, channel: str, user: str, info: str) -> bytes:
        return f"{channel} - {user}".encode()


class Shard:
    """One worker's sockets without its process: the test says what epoll would say."""

    def __init__(
        self,
        worker: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        members: int = 2,
        more: Mapping[str, Dialect] | None = None,
        named: Mapping[str, Dialect] | None = None,
        made: Callable[[Clock, WorkerCounters], Dialect] | None = None,
        hello: Mapping[str, Any] = HELLO,
        max_unacked: int = 128,
        auth: dict[str, Any] | None = None,
        asked_about: Mapping[Dialect, str] | None = None,
        send_buffer: int = 0,
        routes: Routes | None = None,
        edge: Edge = PLAIN_EDGE,
        log: dict[str, Any] | None = None,
        proxies: Networks = NO_PROXIES,
    ) -> None:
        """made: makes the dialect of the path `/`, to which a device says `hello`; None: a pager's. asked_about: those
        about whose clients the main server is asked. send_buffer: of the sockets here, in bytes; 0: the kernel's.
        routes: to several routers. edge: what comes before a request. proxies: they have no limits of addresses."""
        self.messages: list[Any] = []
        self.clock = Clock()
        settings = settings_with((WorkerOptions, worker or {}), (LimitOptions, limits or {}), (AuthOptions, auth or {}))
        counters = WorkerCounters()
        self.counters = counters
        devices = Pager(max_unacked) if made is None else made(self.clock, counters)
        self._hello = json.dumps(hello)
        talk = Talk(members)
        self._poller = Poller()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the supervisor's
        if send_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._port: int = self._listener.getsockname()[1]
        self.sockets = Sockets(
            self._poller,
            settings.get(WorkerOptions),
            {"/": devices, "/talk/*": talk, "/talk/exactly": devices, **(more or {})},
            counters,
            100,
            self.messages.append,
            self.clock.monotonic,
            {DEVICES: devices, "talk": talk, **(named or {})},
            limits=settings.get(LimitOptions),
            asked_about=asked_about or {},
            auth=settings.get(AuthOptions),
            routes=routes or Routes(),
            edge=edge,
            log=Log(**(log or {})),
            proxies=proxies,
        )
        self.sockets.listen(self._listener)
        self._clients: list[socket.socket] = []

    def close(self) -> None:
        self.sockets.drop_all()
        self._poller.close()
        for client in self._clients:
            client.close()

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """A client's connection, which is not accepted yet."""
        client = socket.socket()
        client.settimeout(PATIENCE_S)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self._port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.append(client)
        return client

    def turn(self) -> None:
        """Take turns until epoll reports nothing more."""
        while self.one_turn():
            pass

    def one_turn(self) -> bool:
        """Handle what epoll reports, as the worker's loop does. Returns: whether there was anything."""
        events = self._poller.ready_now()
        self.sockets.begin_turn(self.clock.monotonic())
        for fd, mask in events:
            self.sockets.ready(fd, mask)
        self.sockets.turn()
        self.sockets.speak()
        return bool(events)

    def open(self, path: str, receive_buffer: int = 0) -> tuple[int, websocket.WebSocket]:
        """An upgraded connection on a path: its descriptor here, and the client."""
        client = socket.socket()
        client.settimeout(PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that what it sends is here at once
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self._port))
        self._clients.append(client)
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".encode()
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        known = set(self.sockets.connections)
        self.sockets.ready(self._listener.fileno(), INPUT)
        (fd,) = set(self.sockets.connections) - known
        self.sockets.ready(fd, INPUT)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.recv(1)
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(answer.decode())
        device = websocket.WebSocket()
        device.sock = client
        device.connected = True
        return fd, device

    def talker(self, command: str = "", path: str = "/talk/x", **more: Any) -> "Talker":
        return Talker(self, *self.open(path, **more), command)

    def device(self) -> websocket.WebSocket:
        """A device that has said hello to a router that knows it."""
        fd, device = self.open("/")
        device.send(self._hello)
        self.sockets.ready(fd, INPUT)
        (attach,) = self.said()
        self.sockets.received([m.Reply(attach.number, m.OK, [[], None])])
        assert json.loads(device.recv())["status"] == 200
        return device

    def answer(self, payload: Any = None, status: int = m.OK) -> None:
        """Answer the one question that was put."""
        (call,) = [one.number for one in self.said() if isinstance(one, m.Call)]
        self.sockets.received([m.Reply(call, status, payload)])

    def event(self, body: str, exclude: str = "") -> None:
        self.sockets.received([m.Event(ROOM, body, exclude)])
        self.sockets.speak()  # as the worker's loop, each time

    def said(self) -> list[Any]:
        """What was said to the router since the last time."""
        found = self.messages[:]
        self.messages.clear()
        return found


class Talker:
    """A connection of the talk dialect, from both sides."""

    def __init__(self, shard: Shard, fd: int, client: websocket.WebSocket, command: str) -> None:
        self._shard = shard
        self.fd = fd
        self._client = client
        self.socket_id: str = client.recv()
        if command:
            self.say(command)

    def say(self, command: str) -> None:
        self._client.send(command)
        self._shard.sockets.ready(self.fd, INPUT)

    def hear(self) -> str:
        return str(self._client.recv())

    def hears_nothing(self) -> bool:
        """Whether nothing has come; what is told to it next is the next that it hears."""
        self.say("echo")
        return self.hear() == "echo"

    def frame(self) -> tuple[int, bytes]:
        frame = self._client.recv_frame()
        return frame.opcode, frame.data

    def go(self) -> None:
        self._client.sock.close()
        self._shard.sockets.ready(self.fd, INPUT)

    @property
    def here(self) -> bool:
        return self.fd in self._shard.sockets.connections
