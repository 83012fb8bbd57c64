"""What has gone leaves nothing in a worker, whatever it was doing and however it ended.

The garbage collector does not see connections and sessions. So it is off here, and what lives is counted: of those by
their classes, of everything else of ours by looking at what the collector knows.
"""

import gc
import json
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import farm.worker.acceptor
from farm.dialects import Dialect
from farm.transports.frames import BINARY, CLOSE, PING, TEXT
from router.common import messages as m
from router.common.poller import INPUT
from router.common.position import LogEvent
from support.granted import Granted
from support.living import begin, counted, kinds
from support.plain_dialect import Plain
from support.plain_http import get
from support.replay import ReplayDialect, key_of
from support.shard import ROOM, Shard

NONE: Mapping[str, Dialect] = {}


def frame(opcode: int, payload: bytes = b"", final: bool = True) -> bytes:
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([opcode | 0x80 * final]) + length + b"\0\0\0\0" + payload


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


class Device(NamedTuple):
    """What a device says, and where a message for it goes."""

    key: bytes
    slot: str
    hello: bytes
    register: bytes


def device(key: bytes, slot: str, hello: Mapping[str, Any], register: Mapping[str, Any]) -> Device:
    """One that says this."""
    return Device(key, slot, *(frame(TEXT, json.dumps(said).encode()) for said in (hello, register)))


class Bench:
    """A shard and the connections that are to come and go."""

    def __init__(self, shard: Shard, device: Device) -> None:
        self.shard = shard
        self.device = device
        self.clients: list[socket.socket] = []

    def accepted(self, sent: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.shard._port))
        self.clients.append(client)
        client.sendall(sent)
        self.shard.sockets.ready(self.shard._listener.fileno(), INPUT)
        self.look()
        return client

    def open(self, path: str, *said: bytes, buffer: int = 0) -> socket.socket:
        _, device = self.shard.open(path, buffer)
        client = self.shard._clients.pop()
        assert client is device.sock
        self.clients.append(client)
        self.say(client, *said)
        return client

    def say(self, client: socket.socket, *said: bytes) -> None:
        if said:
            client.sendall(b"".join(said))
            self.look()

    def look(self) -> None:
        """All that epoll would tell."""
        sockets = self.shard.sockets
        for fd, events in self.shard._poller.ready_now():
            if fd in sockets.connections:
                sockets.ready_where_routers_keep_up(fd, events)

    def answer(self, payload: object = None) -> None:
        """Answer what was asked, and what is asked because of that."""
        while calls := [one for one in self.shard.said() if isinstance(one, m.Call)]:
            for call in calls:
                request = call.request
                given = {
                    m.Attach: [[], None],
                    m.ReadLog: [7, 0, True, []],
                    m.Authorise: [200, None, "", "ann", 40],
                }.get(type(request), payload)
                if given is None and isinstance(request, m.PresenceJoin):
                    given = {request.user: request.info}
                self.shard.sockets.received([m.Reply(call.number, m.OK, given)])


def nothing_said(bench: Bench) -> None:
    bench.accepted(b"")


def half_a_request(bench: Bench) -> None:
    bench.accepted(b"GET / HTTP/1.1\r\nHost: push\r\nUpg")


def refused(bench: Bench) -> None:
    bench.accepted(b"GET /nowhere HTTP/1.1\r\nHost: push\r\n\r\n")


def opened(bench: Bench) -> None:
    bench.open("/")


def half_a_frame(bench: Bench) -> None:
    bench.open("/", bench.device.hello[:40])


def half_a_message(bench: Bench) -> None:
    bench.open("/", frame(TEXT, b'{"mess', False), frame(PING), frame(0, b"age", False))


def broken_frames(bench: Bench) -> None:
    bench.open("/", frame(TEXT, b'{"mess', False), frame(TEXT, b"never"))


def asked(bench: Bench) -> None:
    bench.open("/", bench.device.hello)


def asked_and_said_more(bench: Bench) -> None:
    bench.open("/", bench.device.hello, bench.device.register, frame(PING), bench.device.register[:9])


def attached(bench: Bench) -> socket.socket:
    client = bench.open("/", bench.device.hello)
    bench.answer()
    return client


def sent_something(bench: Bench) -> None:
    attached(bench)
    bench.shard.sockets.received([m.Deliver(1, bench.device.key, bench.device.slot, 1, None)])


def asked_while_attached(bench: Bench) -> None:
    bench.say(attached(bench), bench.device.register)


def replaced_here(bench: Bench) -> None:
    attached(bench)
    attached(bench)


def replaced_elsewhere(bench: Bench) -> None:
    attached(bench)
    bench.shard.sockets.received([m.Disconnect(bench.device.key)])


def asks_too_much(bench: Bench) -> None:
    bench.open("/talk/x", *[frame(TEXT, b"again")] * 60)
    bench.shard.sockets.turn()


def waits_for_a_room(bench: Bench) -> None:
    bench.open("/talk/join")


def in_a_room(bench: Bench) -> None:
    bench.open("/talk/join")
    bench.open("/talk/join")
    bench.answer()
    bench.shard.event("to both")


def while_it_is_told(bench: Bench) -> None:
    for _ in range(3):
        bench.open("/talk/join")
    bench.answer()
    bench.shard.sockets.received([m.Event(ROOM, "to all", "")])


def waits_to_be_a_member(bench: Bench) -> None:
    bench.open("/talk/x", frame(TEXT, b"join ann"))


def members(bench: Bench) -> None:
    for name in (b"ann", b"bob", b"ann"):
        bench.open("/talk/x", frame(TEXT, b"join " + name))
        bench.answer({name.decode(): "info"})


def hidden(bench: Bench) -> None:
    bench.open("/talk/x", frame(TEXT, b"hide"))
    bench.answer()


def calls(bench: Bench) -> None:
    in_a_room(bench)
    for client in bench.clients:
        bench.say(client, frame(TEXT, b"call"))


def catches_up(bench: Bench) -> None:
    """Some have the log of one channel, and wait for that of another; events come meanwhile."""
    for client in [bench.open("/replay/x") for _ in range(3)]:
        bench.say(client, frame(TEXT, b'{"subscribe": {"a": [1, 1], "b": [0, 0, 2]}}'))
    opened = [one for one in bench.shard.said() if isinstance(one, m.Call)]
    for call in opened[:-1]:
        payload = None if isinstance(call.request, m.Subscribe) else [7, 0, True, []]
        bench.shard.sockets.received([m.Reply(call.number, m.OK, payload)])
    event = LogEvent(1, 1, 1, 2_000_000_000, "", {}, "held")
    bench.shard.sockets.received([m.LoggedEvent(key_of("a"), 7, event, ""), m.Event(key_of("b"), "held", "")])
    bench.shard.messages.append(opened[-1])


def has_caught_up(bench: Bench) -> None:
    catches_up(bench)
    bench.answer()


def dismissed(bench: Bench) -> None:
    in_a_room(bench)
    bench.shard.sockets.received([m.Terminate(ROOM, 4009, "out")])


def takes_nothing(bench: Bench) -> None:
    client = bench.open("/talk/x", buffer=2048)
    (fd,) = bench.shard.sockets.connections
    connection = bench.shard.sockets.connections[fd]
    while connection.out is None:
        bench.shard.sockets.output.write(connection, b"x" * 20_000)
    bench.say(client, frame(TEXT, b"and more"))


def streams(bench: Bench) -> None:
    for path in ("/plain/stream/join?hi", "/plain/stream/join", "/plain/stream"):
        bench.accepted(get(path))
    bench.answer()
    bench.shard.event("to both")


def streams_and_websockets_are_told(bench: Bench) -> None:
    streams(bench)
    in_a_room(bench)
    for number in range(3):
        bench.shard.sockets.received([m.Event(ROOM, str(number), "")])


def polls(bench: Bench) -> None:
    for path in ("/plain/poll/join", "/plain/poll?answered", "/plain/poll?answered"):
        bench.accepted(get(path))
    bench.say(bench.clients[-1], get("/plain/poll/join") + get("/plain/poll/join") + b"GET /half")
    bench.answer()


def polls_and_was_told(bench: Bench) -> None:
    polls(bench)
    for number in range(3):
        bench.shard.sockets.received([m.Event(ROOM, str(number), "")])


def waits_to_be_admitted(bench: Bench) -> None:
    for path in ("/plain/asked/stream", "/plain/asked/poll"):
        bench.accepted(get(path) + b"and more")


def waits_to_be_granted(bench: Bench) -> None:
    for path in ("/granted/stream", "/granted/poll"):
        bench.accepted(get(path) + b"and more")


def granted_for_a_while(bench: Bench) -> None:
    for path in ("/granted/stream", "/granted/poll"):
        bench.accepted(get(path))
    bench.accepted(get("/granted/ws", *UPGRADE))
    bench.answer()


def is_renewed(bench: Bench) -> None:
    granted_for_a_while(bench)
    for _ in range(4):
        bench.shard.clock.pass_by(10)
        bench.shard.sockets.tick()
    bench.shard.sockets.welcomed()


def asks_about_a_message(bench: Bench) -> None:
    granted_for_a_while(bench)
    for client in bench.clients[-1:]:
        bench.say(client, frame(TEXT, b"publish hello"), frame(TEXT, b"again"))


def its_router_does_not_keep_up(bench: Bench) -> None:
    """Clients that it holds up in each way: a hello, a subscription, a call, a question, and one that has sent
    something; and a device that is attached."""
    sockets = bench.shard.sockets
    sockets.keeps_up(frozenset())
    client = attached(bench)
    sockets.keeps_up(frozenset((0,)))
    bench.say(client, bench.device.register)
    bench.open("/", bench.device.hello)
    for command in (b"join", b"join ann", b"call", b"publish"):
        bench.open("/talk/x", frame(TEXT, command), frame(TEXT, b"later"))
    bench.accepted(get("/granted/poll") + b"and more")


def half_a_body(bench: Bench) -> None:
    bench.accepted(get("/plain/x", "Content-Length: 5", method="POST") + b"x")


def a_defect(bench: Bench) -> None:
    bench.open("/talk/x", frame(TEXT, b"break"))
    bench.open("/talk/x", frame(TEXT, b"break later"))


def peer_ends(bench: Bench) -> None:
    for client in bench.clients:
        client.close()


def peer_resets(bench: Bench) -> None:
    for client in bench.clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def peer_closes(bench: Bench) -> None:
    for client in bench.clients:
        with suppress(OSError):
            client.sendall(frame(CLOSE, b"\x03\xe8"))
    bench.look()
    peer_ends(bench)


def we_close(bench: Bench) -> None:
    """And the peer answers, with something before that."""
    for connection in bench.shard.sockets.open_connections():
        bench.shard.sockets.let_go(connection)
    for client in bench.clients:
        with suppress(OSError):
            client.sendall(frame(BINARY, b"late") + frame(CLOSE, b"\x03\xe9"))
    bench.look()
    peer_ends(bench)


def we_close_and_wait(bench: Bench) -> None:
    """And the peer says nothing more."""
    for connection in bench.shard.sockets.open_connections():
        bench.shard.sockets.let_go(connection)


def it_takes_too_long(bench: Bench) -> None:
    """Deadlines for whoever has one, and then for the close."""
    for _ in range(20):
        bench.shard.clock.pass_by(60)
        bench.shard.sockets.tick()
    we_close_and_wait(bench)


def we_end(bench: Bench) -> None:
    for connection in list(bench.shard.sockets.connections.values()):
        bench.shard.sockets.output.drop(connection)


STATES: list[Callable[[Bench], object]] = [
    nothing_said,
    half_a_request,
    refused,
    opened,
    half_a_frame,
    half_a_message,
    broken_frames,
    asked,
    asked_and_said_more,
    attached,
    sent_something,
    asked_while_attached,
    replaced_here,
    replaced_elsewhere,
    asks_too_much,
    waits_for_a_room,
    in_a_room,
    while_it_is_told,
    waits_to_be_a_member,
    members,
    hidden,
    calls,
    catches_up,
    has_caught_up,
    dismissed,
    takes_nothing,
    streams,
    streams_and_websockets_are_told,
    polls,
    polls_and_was_told,
    waits_to_be_admitted,
    waits_to_be_granted,
    granted_for_a_while,
    is_renewed,
    asks_about_a_message,
    its_router_does_not_keep_up,
    half_a_body,
    a_defect,
]
ENDS: list[Callable[[Bench], None]] = [
    peer_ends,
    peer_resets,
    peer_closes,
    we_close,
    we_close_and_wait,
    it_takes_too_long,
    we_end,
]


class Watched:
    """A shard, and how many connections and sessions of devices are alive."""

    def __init__(self, shard: Shard, living: Counter[str], device: Device) -> None:
        self._shard = shard
        self._living = living
        self._device = device

    def check(self, state: Callable[[Bench], object]) -> None:
        """A connection that is brought into this state and then ends, in whichever way, leaves nothing."""
        shard, living = self._shard, self._living
        before = kinds()
        for end in ENDS:
            bench = Bench(shard, self._device)
            state(bench)
            assert len(shard.sockets)
            assert living["Connection"] == len(shard.sockets)
            end(bench)
            for _ in range(30):
                bench.look()
                shard.sockets.turn()
                shard.sockets.speak()
                shard.clock.pass_by(0.25)
                shard.sockets.tick()
            shard.sockets.keeps_up(frozenset())
            bench.answer()  # what was asked is answered, if late
            shard.sockets.speak()
            bench.look()
            for _ in range(2):  # what the last have sent, and that they have gone
                bench.look()
            for client in bench.clients:
                client.close()
            assert not len(shard.sockets), end.__name__
            assert +living == {}, end.__name__
        assert kinds() - before == {}


@contextmanager
def watched(
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    sessions: ModuleType,
    name: str,
    paths: Mapping[str, Dialect] = NONE,
    named: Mapping[str, Dialect] = NONE,
    also: Sequence[tuple[ModuleType, str]] = (),
    **options: Any,
) -> Iterator[Watched]:
    """sessions, name: where the class of the sessions of attached devices stands; also: and others. paths: more than
    `/`, by what is spoken there. named: dialects by their names. options: of the shard."""
    logging.disable()  # pytest keeps what is logged, with its frames
    living: Counter[str] = Counter()
    for module, kind in ((farm.worker.acceptor, "Connection"), (sessions, name), *also):
        monkeypatch.setattr(module, kind, counted(getattr(module, kind), living))
    replay, granted = ReplayDialect(), Granted(of_messages=True)
    more = {"/plain/**": Plain(keeps=False), "/replay/*": replay, "/granted/*": granted, **paths}
    options["asked_about"] = {granted: "granted"}
    worker, limits = {"frames_a_turn": 8, "fanout_slice": 2}, {"commands_per_second": 20}
    shard = Shard(worker, limits, more=more, named={"replay": replay, **named}, **options)
    begin()
    gc.disable()
    yield Watched(shard, living, device)
    gc.enable()
    logging.disable(logging.NOTSET)
    shard.close()
