"""What comes over the link between the processes, and requests on the router port with the real hub behind them.

A line of the link is a JSON list; a text that begins with "b:" stands for bytes, and `b:d` for a key of 16. "!raw HEX"
is a message as it is.
"""

from __future__ import annotations

import importlib
import itertools
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import trio
import trio.testing
import zmq
from support.common import Rig, settings_with

import farm.supervisor.status_link
import router.common.wire
import router.core.channels
import router.core.hub
from farm.supervisor.status_link import StatusLink
from fuzz.dialects import MODULES
from fuzz.engine import Target
from fuzz.structures import changed, json_lines
from router.common import messages as m
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.common.wire import NEWEST
from router.core.pushes import DELIVERED
from router.dialects import specs
from router.dialects.app_server import Context
from router.http.message import Request, Response, encode
from router.http.routes import Router

_OTHER: Final = b"o" * 16
_NOT_NEXT: Final = 7
"""A batch whose number can be divided by it need not be the next one."""


def _value(found: Any) -> Any:
    if isinstance(found, str) and found.startswith("b:"):
        short = found[2:].encode("latin-1", "replace")
        return (short * 16)[:16] if len(short) == 1 else short
    if isinstance(found, list):
        return [_value(one) for one in found]
    if isinstance(found, dict):
        return {key: _value(one) for key, one in found.items()}
    return found


def _in_rig(scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        rig = Rig(store={"queue_limit": 1000}, link={"max_broadcasts": 5, "max_broadcast_changes": 5})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.committer.run, rig.flushed)
            await scenario(rig)
            nursery.cancel_scope.cancel()

    trio.run(main)


# ---------------------------------------------------------------------- workers


def hub(data: bytes) -> None:
    """Messages of a worker that may send anything, beside one that is as it should be."""

    async def scenario(rig: Rig) -> None:
        other = rig.worker(1)
        other.say(m.Call(1, m.Attach(_OTHER, "", 0, 0)))
        await rig.settle()
        other.take()
        worker = rig.worker(0)
        for line in data.split(b"\n")[:40]:
            raw = _raw(line)
            if raw is None:
                continue
            _is_expected(rig, worker, raw)
            with suppress(m.MessageError):
                rig.hub.received(worker.identity, raw)
            await rig.settle()
            for session in rig.hub.sessions:
                session.wire.encode(m.RouterBatch(session.confirmed, session.outbox, session.unkept))
            list(rig.hub.take_direct())
        rig.hub.tick()
        if rig.hub.sessions.get(other.identity) is not None:
            await _is_served(rig, other)
        for _ in range(3):
            rig.clock.pass_by(10 * rig.link.lease)
            rig.hub.tick()
            rig.hub.map.sweep(100)
            await rig.settle()
        left = (len(rig.hub.sessions), rig.hub.sessions.dirty, len(rig.hub.channels))
        assert left == (0, {}, 0), f"something is left of lost workers: {left}"
        assert rig.hub.in_work == 0, "a push waits for ever"

    _in_rig(scenario)


def _is_expected(rig: Rig, worker: Any, raw: bytes) -> None:
    """The worker has joined, and a batch is the next one, but for some: otherwise few would be looked at."""
    if rig.hub.sessions.get(worker.identity) is None:
        worker.join()
    session = rig.hub.sessions.get(worker.identity)
    with suppress(Exception):
        batch = NEWEST.of_worker(raw, rig.link.max_message_bytes)
        if session is not None and isinstance(batch, m.WorkerBatch) and batch.sequence % _NOT_NEXT:
            session.seen = batch.sequence - 1


async def _is_served(rig: Rig, other: Any) -> None:
    other.take()
    outcome = rig.push(_OTHER, "slot", 1)
    delivered = [word for word in other.take() if isinstance(word, m.Deliver)]
    if delivered:  # else the first worker has reported that the device is connected
        other.say(m.Result(delivered[0].number, m.WRITTEN))
        await rig.settle()
        assert outcome == [DELIVERED], f"another worker's device is not served: {outcome}"


def _raw(line: bytes) -> bytes | None:
    try:
        if line.startswith(b"!raw "):
            return bytes.fromhex(line[5:].decode("ascii", "replace"))
        return msgspec.msgpack.encode(_value(json.loads(line)))
    except Exception:  # not JSON, or what nobody could say
        return None


def _json(envelope: m.Envelope) -> str:
    return json.dumps(msgspec.to_builtins(envelope))


_MESSAGES: Final[tuple[m.Message, ...]] = (
    m.Call(7, m.Attach("b:d", "simplepush.device", m.EVERYTHING, 5000)),
    m.Call(8, m.Attach("b:d", "", 0, 0)),
    m.Detach("b:d"),
    m.Announce(["b:d", "b:o"], [[1, 0], [1, 6000]]),
    m.Call(9, m.Subscribe("b:c", "pusher\x003\x00news")),
    m.Unsubscribe("b:c"),
    m.AnnounceChannels([["b:c", "pusher\x003\x00presence-a", 3, [["u", "{}"]]]]),
    m.Call(10, m.Record("simplepush.device", "b:d", "b:xxxx", 60)),
    m.Call(11, m.Fetch("b:d", 5)),
    m.Ack("b:d", [["slot", 3]]),
    m.Call(12, m.Drop("b:d", "slot")),
    m.Call(13, m.Publish("b:c", "body", 60, "")),
    m.Result(1, m.WRITTEN),
    m.Call(14, m.SetAdd("webpush.device", "b:d", "b:m", "b:\0\0\0\1", 60, 3)),
    m.Call(15, m.SetRemove("webpush.device", "b:d", "b:m")),
    m.Counted("b:c", 3),
    m.Call(16, m.PresenceJoin("b:c", "u", "{}", 5)),
    m.PresenceLeave("b:c", "u"),
    m.Call(17, m.ReadLog("b:c", (7, 3, 2))),
    m.Call(18, m.Invoke("talk", "b:c", "b:a")),
    m.Call(19, m.Authorise("talk", m.CONNECT, "GET", "/", [["b:cookie", "b:a"]], "", ["a"])),
    m.Happened("pusher\x003\x00news", "cache_miss", ""),
    m.Inspected(1, [["b:d", "talk", "192.0.2.1", 0.5, 7]], False),
)
_LINES: Final = [
    _json(one)
    for one in (
        *(m.WorkerBatch(number + 1, [one, one]) for number, one in enumerate(_MESSAGES)),
        m.WorkerBatch(1, list(_MESSAGES)),
        m.WorkerBatch(2, [_MESSAGES[4], _MESSAGES[16], _MESSAGES[4], _MESSAGES[17]]),
        m.Ready(m.PROTOCOL, 0, "b:i", 4711, m.PROTOCOL),
        m.Ready(m.PROTOCOL, 1, "b:i", 4711, m.PROTOCOL),
        m.Begin("host", 0),
        m.Begin("", 5),
        m.Announced(0),
        m.Beat({"connections": 1}),
        m.Beat({"connections": 1}, 3),
        m.AskStatus(3),
        m.SetBroadcast(4, "webpush", "key", "1"),
        m.SetBroadcast(5, "webpush", "", None),
        m.Manage(6, "device", {"device": "ab" * 16, "limit": 5}),
        m.Manage(7, "nothing", {}),
        m.Leave(),
    )
] + ["!raw 9302", "!raw 82", "!raw c1", "!raw 920381a0c0", "!raw " + "91" * 2000 + "c0"]

# ---------------------------------------------------------------------- the supervisor

_context = zmq.Context()
_numbers = itertools.count()


def status(data: bytes) -> None:
    """What a router answers the supervisor: a message a line, as of the link or "!raw"."""

    async def main() -> None:
        router_end = _context.socket(zmq.ROUTER)
        router_end.setsockopt(zmq.LINGER, 0)
        where = f"inproc://status-{next(_numbers)}"
        router_end.bind(where)
        link = StatusLink(_context, where)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                nursery.start_soon(link.ask)
                await trio.testing.wait_all_tasks_blocked()
                identity, *_ = router_end.recv_multipart(zmq.NOBLOCK)
                for line in data.split(b"\n")[:20]:
                    raw = _raw(line)
                    if raw is not None:
                        router_end.send_multipart([identity, raw])
                router_end.send_multipart([identity, NEWEST.encode(m.Status(2, {"good": 1}))])
                with trio.fail_after(10):
                    link._number = 1
                    assert await link.ask() is not None, "it hears nothing any more"
                nursery.cancel_scope.cancel()
        finally:
            link.close()
            router_end.close()

    trio.run(main)


_STATUS: Final = [
    _json(m.Status(1, {"router": {}, "workers": [], "pid": 1, "memory": 1})),
    _json(m.Status(1, None)),
    _json(m.Status("1", [])),
    _json(m.Status([1], {})),
    "!raw c1",
    "!raw 93cd",
    "!raw ",
]

# ---------------------------------------------------------------------- app servers


def routes(data: bytes) -> None:
    """Requests, one a line: [method, path, query, headers, body], with names such as $WEB that `prepare` gives."""

    async def scenario(rig: Rig) -> None:
        keys = Tokens([b"k" * 32])
        settings = settings_with(
            (EndpointOptions, {"url": "https://push.example.org"}),
            *(change for module in MODULES for change in module.SETTINGS),
        )

        def status() -> dict[str, Any]:
            return {"router": rig.hub.counters.snapshot() | {"store_ok": True}, "workers": [], "age": 1.0}

        context = Context(rig.hub.core, keys, settings, rig.clock.unix, status)
        table = Router(route for spec in _DIALECTS for route in spec.routes(context))
        names = {name: text for module in MODULES for name, text in module.prepare(rig, keys).items()}
        for line in data.split(b"\n")[:10]:
            for name, text in names.items():
                line = line.replace(name, text.encode())
            request = _request(line)
            if request is None:
                continue
            answers: list[Response] = []
            handler = table.find(request.path)
            if handler is None:
                continue
            handler(request, answers.append)
            for _ in range(20):
                await rig.settle()
                context.turns.run()
                if answers:
                    break
            rig.clock.pass_by(1)
            assert len(answers) == 1, f"{len(answers)} answers"
            assert answers[0].status in (200, 201, 202, 204, 400, 401, 403, 404, 405, 410, 413, 415, 503), answers[0]
            encode(answers[0], True)

    _in_rig(scenario)


def _request(line: bytes) -> Request | None:
    try:
        method, path, query, headers, body = json.loads(line)
        found = {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in headers.items()}
        target = [part.encode("ascii") for part in (method, path, query)]
        content = body.encode("latin-1")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if any(b"\n" in value or b"\r" in value or b"\0" in value for value in found.values()):
        return None
    if any(byte <= 32 or byte > 126 for byte in target[1] + target[2]):
        return None
    return Request(target[0], target[1], target[2], {b"host": b"a"} | found, content)


_DIALECTS: Final = specs()
_REQUESTS: Final = [json.dumps(one) for module in MODULES for one in module.REQUESTS]
_REQUESTS += [json.dumps(["GET", "/status/", "", {}, ""])]


def _mutate_request(chance: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    if chance.random() < 0.2:
        lines.insert(at, chance.choice(_REQUESTS).encode())
    try:
        request = json.loads(lines[at])
        body = json.loads(request[4])
    except (ValueError, TypeError, LookupError):
        return json_lines(_REQUESTS)(chance, b"\n".join(lines))
    if chance.random() < 0.7:
        request[4] = json.dumps(changed(chance, body))
        lines[at] = json.dumps(request).encode()
        return b"\n".join(lines)
    return json_lines(_REQUESTS)(chance, b"\n".join(lines))


TARGETS = (
    Target(
        "link",
        hub,
        (router.core.hub, router.core.channels, router.common.wire),
        tuple(line.encode() for line in _LINES),
        mutate=json_lines(_LINES),
    ),
    Target(
        "status",
        status,
        (farm.supervisor.status_link,),
        tuple(line.encode() for line in _STATUS),
        mutate=json_lines(_STATUS),
    ),
    Target(
        "routes",
        routes,
        [importlib.import_module(f"router.dialects.{spec.name}.app_server") for spec in _DIALECTS],
        tuple(line.encode() for line in _REQUESTS),
        (b"%00", b"%ff", b"&", b"=", b"version=", b"boundary=", b"multipart/form-data; ", b'; filename="a"', b"info="),
        _mutate_request,
    ),
)
