"""`farm bench fanout`: its bytes and sums, a real farm, and servers that misbehave in known ways."""

import contextlib
import hashlib
import hmac
import io
import itertools
import json
import os
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.common import deaf_port
from support.installed import missing
from support.misbehaving import FRAME_FAULTS, Misbehaving, Peer, Rules, every
from wsproto import WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Pong, Request, TextMessage

from bench import peers
from bench.cli import main
from bench.errors import BenchError
from bench.figures.results import shown
from bench.interrupt import Interrupt
from bench.load import frames
from bench.load.frames import PeerError
from bench.load.http_bytes import judged, payload_of
from bench.load.protocols import FAN_OUTS, protocol_of
from bench.load.protocols.base import DONE, PONG, Received, Scenario
from bench.load.protocols.nats import Publish
from bench.load.protocols.pusher import OURS, application_in
from bench.load.protocols.pusher import Post as Pusher
from bench.load.protocols.subscribe import Plain
from bench.load.samples import DATA_RIGHT, DATA_WRONG
from bench.load.shared_counts import SharedCounts, numbers_in
from bench.machine.usage import Usage, Use
from bench.peers.base import NotInstalledError, Tools
from bench.progress import Progress
from bench.runs import compare as comparing
from bench.runs import fanout as fanning
from bench.runs.app_servers import Outcome
from bench.runs.compare_figures import FIGURES, fanout_figures
from bench.runs.contestants import Contestant
from bench.runs.deliveries import clean, cpu_a_million, deliveries_of
from bench.runs.fanout import Plan
from bench.runs.load import Load
from bench.runs.subscribers import Tally
from bench.target import Target
from bench.views import compare as compare_view

SUBSCRIBERS = 6
WAIT_SECONDS = 60.0
SCENARIO = Scenario("h:1", payload=60, shared=4)
CHANNEL = "fanout-1"


def event(channel: str = CHANNEL, version: int = 7, size: int = 60, name: str = "bench", **more: object) -> bytes:
    return json.dumps({"event": name, "channel": channel, "data": payload_of(version, size).decode(), **more}).encode()


# ---- bytes


@given(st.binary(max_size=300), st.binary(max_size=9), st.sampled_from([frames.TEXT, frames.BINARY]))
def test_where_a_message_ends(payload: bytes, before: bytes, opcode: int) -> None:
    size = bytes((len(payload),)) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    frame = bytes((0x80 | opcode,)) + size + payload
    for cut in range(len(frame)):
        assert frames.message_end(before + frame[:cut], len(before)) == 0
    end = frames.message_end(before + frame + b"\x81", len(before))
    assert end == len(before) + len(frame)
    assert frames.payload_of(frame) == payload


@pytest.mark.parametrize(
    "data", [b"", b"\x81", b"\x89\x00", b"\x01\x01x", b"\x80\x01x", b"\xc1\x01x", b"\x81\x80\0\0\0\0"]
)
def test_what_is_not_a_whole_message(data: bytes) -> None:
    assert frames.message_end(data) == 0


def test_a_message_too_long_for_the_short_way() -> None:
    assert frames.message_end(b"\x81\x7f" + (5).to_bytes(8, "big") + b"12345") == 0


def test_what_data_says() -> None:
    assert judged(b"123", 0) == (123, DATA_RIGHT)
    assert judged(payload_of(123, 30), 30) == (123, DATA_RIGHT)
    assert judged(payload_of(123, 29), 30) == (123, DATA_WRONG)
    assert judged(payload_of(123, 29) + b"x", 30) == (123, DATA_WRONG)
    for data, size in ((b"", 0), (b"x", 5), (b".5", 5), (b"12.", 0)):
        with pytest.raises(PeerError):
            judged(data, size)


def test_an_event_of_an_app_server_is_signed() -> None:
    request = Pusher("h:1", "key:secret").request(b"/apps/3/events?news-4", 9, 40)
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert f"Content-Length: {len(body)}" in headers and "Host: h:1" in headers
    assert json.loads(body) == {"name": "bench", "channels": ["news-4"], "data": payload_of(9, 40).decode()}
    method, target, _ = line.split()
    assert method == "POST" and signed(method, target, body, "secret")
    assert dict(parse_qsl(urlsplit(target).query))["auth_key"] == "key"


def signed(method: str, target: str, body: bytes, secret: str) -> bool:
    """Whether a request has the signature that Pusher's HTTP API asks for."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query))
    signature = query.pop("auth_signature")
    text = f"{method}\n{parts.path}\n" + "&".join(f"{name}={query[name]}" for name in sorted(query))
    fresh = abs(int(query["auth_timestamp"]) - time.time()) < 600
    right = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return fresh and signature == right and query["body_md5"] == hashlib.md5(body).hexdigest()


def test_events_for_other_servers() -> None:
    assert Plain("h").request(b"/push/1", 5, 30).endswith(b"Content-Length: 30\r\n\r\n" + payload_of(5, 30))
    assert Publish("").request(b"/d.1", 5, 30) == b"PUB d.1 30\r\n%b\r\nPING\r\n" % payload_of(5, 30)


def test_a_device_of_pusher() -> None:
    protocol = protocol_of("pusher", SCENARIO, {"key": "k"})
    assert protocol.request(5).startswith(b"GET /app/k?protocol=7&")
    step = protocol.opened(5, b"")
    assert step.step != DONE and not step.send
    assert protocol.answered(5, step.step, b'{"event":"other"}', b"") is None
    pinged = protocol.answered(5, step.step, b'{"event":"pusher:ping","data":{}}', b"")
    assert pinged is not None and pinged.step == step.step and pinged.send
    hello = b'{"event":"pusher:connection_established","data":"{}"}'
    subscribe = protocol.answered(5, step.step, hello, b"")
    assert subscribe is not None and subscribe.step != DONE
    wanted = b'{"event":"pusher:subscribe","data":{"auth":"","channel":"fanout-1"}}'
    assert subscribe.send == frames.client_frame(wanted)
    done = b'{"event":"pusher_internal:subscription_succeeded","channel":"fanout-%d","data":"{}"}'
    assert protocol.answered(5, subscribe.step, done % 2, b"") is None
    last = protocol.answered(5, subscribe.step, done % 1, b"")
    assert last is not None and last.step == DONE and not last.send
    assert protocol.received(5, event()) == Received(((1, 7, DATA_RIGHT),))
    assert protocol.received(5, event(size=59)) == Received(((1, 7, DATA_WRONG),))
    assert protocol.received(5, event(user_id="3")) == Received(((1, 7, DATA_WRONG),))
    assert protocol.received(5, event("fanout-2")) == Received(strays=1)
    assert protocol.received(5, event(name="other")) is None
    assert protocol.received(5, b'{"event":"pusher:pong"}') is PONG
    pong = protocol.received(5, b'{"event":"pusher:ping"}')
    assert pong is not None and pong.reply and not pong.updates


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"{{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"event":"bench","channel":"fanout-1"}', "bad message"),
        (b'{"event":"bench","channel":"fanout-1","data":7}', "bad message"),
        (b'{"event":"pusher:error","data":{"message":"no","code":4301}}', "pusher:error 4301"),
        (b'{"event":"pusher:error","data":"{\\"code\\":4009}"}', "pusher:error 4009"),
        (b'{"event":"pusher:error","data":"unauthorized"}', "pusher:error without a code"),
        (b'{"event":"pusher:error","data":"3"}', "pusher:error without a code"),
        (b'{"event":"pusher:subscription_error","data":{"status":401}}', "pusher:subscription_error 401"),
    ],
)
def test_what_a_device_of_pusher_refuses(payload: bytes, text: str) -> None:
    with pytest.raises(PeerError, match=text):
        protocol_of("pusher", SCENARIO, {}).received(5, payload)


def test_devices_that_share_channels_of_other_servers() -> None:
    nats = protocol_of("nats", SCENARIO, {})
    subscribe = frames.client_frame(
        b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1",'
        b'"protocol":0}\r\nSUB d.1 1\r\nPING\r\n',
        frames.BINARY,
    )
    assert nats.opened(5, b"").send == subscribe
    assert nats.received(5, b"MSG d.1 1 60\r\n%b\r\n" % payload_of(9, 60)) == Received(((1, 9, DATA_RIGHT),))
    assert nats.received(5, b"MSG d.1 1 2\r\n9.\r\n") == Received(((1, 9, DATA_WRONG),))
    plain = protocol_of("subscribe", SCENARIO, {"path": "/sub/{channel}", "first": "{index} {channel}"})
    assert plain.request(6).startswith(b"GET /sub/2 ") and plain.opened(6, b"").send == frames.client_frame(b"6 2")
    assert plain.received(6, payload_of(9, 60)) == Received(((2, 9, DATA_RIGHT),))
    assert plain.received(6, payload_of(9, 60)[:-1] + b"x") == Received(((2, 9, DATA_WRONG),))
    with pytest.raises(ValueError, match="one channel"):
        protocol_of("pusher", Scenario("h", channels=2), {})


# ---- deliveries


def outcome(*rows: tuple[int, int, int]) -> Outcome:
    """Events as (channel, version, status)."""
    found = Outcome(start=1)
    for channel, version, status in rows:
        found.pushes.channels.append(channel)
        found.pushes.versions.append(version)
        found.pushes.statuses.append(status)
        found.pushes.times.append(3)
    return found


def tally(*rows: tuple[int, int, int, int, int], gone: tuple[tuple[int, int], ...] = ()) -> Tally:
    """Arrivals as (channel, version, count, first, last)."""
    columns = (
        [array(code, column) for code, column in zip("IqIqq", zip(*rows, strict=True), strict=True)] if rows else []
    )
    columns = columns or [array(code) for code in "IqIqq"]
    columns += [array("I", [0, 0]), array("I", [channel for channel, _ in gone])]
    columns.append(array("q", [version for _, version in gone]))
    found = Tally(array("I", [0, 0]))
    found.add([column.tobytes() for column in columns], {"duplicates": 0})
    return found


def test_the_deliveries_of_events() -> None:
    sent = outcome((0, 10, 200), (1, 20, 200), (0, 30, 200), (0, 40, 401), (1, 50, 0), (0, 60, 200))
    got = tally((0, 10, 3, 12, 15), (1, 20, 1, 22, 23), (0, 30, 2, 33, 36), (1, 50, 2, 51, 52), (0, 99, 3, 100, 101))
    deliveries = deliveries_of(sent, [3, 2], got)
    assert (deliveries.events, deliveries.expected, deliveries.delivered, deliveries.lost) == (6, 11, 6, 5)
    assert (deliveries.refused, deliveries.unanswered) == (1, 1)
    assert (deliveries.refused_but_arrived, deliveries.unexpected) == (2, 3)
    assert list(deliveries.to_first) == [2] and list(deliveries.to_last) == [5] and deliveries.last == 36
    assert deliveries.fields()["statuses"] == {200: 4, 401: 1, 0: 1}


def test_what_went_to_those_who_left_is_not_lost() -> None:
    sent = outcome((0, 10, 200), (0, 20, 200), (1, 25, 200), (0, 30, 200))
    # of three subscribers one left after the first event, and one before
    got = tally((0, 10, 2, 11, 12), (0, 20, 1, 21, 22), (1, 25, 2, 26, 27), (0, 30, 1, 31, 32), gone=((0, 10), (0, 0)))
    deliveries = deliveries_of(sent, [3, 2], got)
    assert (deliveries.expected, deliveries.delivered, deliveries.undelivered, deliveries.lost) == (11, 6, 5, 0)


def test_the_tallies_of_several_processes_are_one() -> None:
    both = tally((0, 10, 2, 12, 15))
    other = tally((0, 10, 1, 11, 14), (0, 20, 1, 21, 21))
    columns = [array(code) for code in "IqIqqIIq"]
    for (channel, version), arrived in other.events.items():
        for column, value in zip(columns, (channel, version, arrived.count, arrived.first, arrived.last), strict=False):
            column.append(value)
    columns[5].extend([1, 2])
    both.add([column.tobytes() for column in columns], {"duplicates": 2, "reordered": 1})
    first = both.events[0, 10]
    assert (first.count, first.first, first.last) == (3, 11, 15)
    assert both.events[0, 20].count == 1 and list(both.listening) == [1, 2]
    assert both.faults == {"duplicates": 2, "reordered": 1}


def test_cpu_of_a_million() -> None:
    uses = [Use("router", 1, 0.5, 0, 0), Use("workers", 2, 3.0, 0, 0), Use("workers", 3, 4.0, 0, 0)]
    uses.append(Use("load subscribers", 4, 5.0, 0, 0))
    costs = cpu_a_million(Usage(10.0, uses, 1.0), 500_000)
    assert costs == {"router": 1, "workers": 14, "load subscribers": 10, "server": 15, "load": 10, "all": 25}
    assert set(cpu_a_million(Usage(10.0, uses, 1.0), 0).values()) == {None}


def test_counts_that_processes_share() -> None:
    with SharedCounts(3) as counts:
        theirs = numbers_in(counts.path)
        theirs[1] = 7
        assert list(counts.numbers)[:3] == [0, 7, 0]
        theirs.release()
        path = counts.path
    with pytest.raises(OSError):
        numbers_in(path)


def test_applications_of_a_farm_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "apps.json"
    file.write_text('{"applications":[{"name":"shop","key":"k","secret":"s"},{"id":2}]}')
    found = application_in(str(file))
    assert (found.id, found.key, found.secret) == ("shop", "k", "s") and "s'" not in repr(found)
    for text in ("{", "[]", '{"applications":[]}', '{"applications":[{"name":"n"}]}', '{"applications":[3]}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="no application"):
            application_in(str(file))
    with pytest.raises(ValueError, match="No such file"):
        application_in(str(tmp_path / "none"))


# ---- a server that misbehaves


class MisbehavingPusher(Misbehaving):
    """The Pusher dialect on the same loop. A fault of an event is done to the first subscriber of its channel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.subscribers: dict[str, list[Peer]] = {}
        self.held: dict[str, tuple[Peer, bytes]] = {}
        self.pongs = self.under_way = self.most_under_way = 0

    @property
    def router(self) -> str:
        return f"http://127.0.0.1:{self.router_port.getsockname()[1]}"

    def close(self, peer: Peer, reset: bool = False) -> None:
        for those in self.subscribers.values():
            if peer in those:
                those.remove(peer)
        super().close(peer, reset)

    def say(self, peer: Peer, name: str, **more: object) -> bytes:
        assert peer.ws is not None
        return peer.ws.send(TextMessage(json.dumps({"event": name, **more})))

    def command(self, peer: Peer, ws: WSConnection, event: Event) -> None:
        if isinstance(event, Request):
            if peer.fault in ("", "refuse subscribe", "silent subscribe", "error subscribe", "ahead", "not JSON"):
                hello = '{"socket_id":"1.1","activity_timeout":120}'
                first = ws.send(AcceptConnection())
                ahead = ws.send(Ping(b"?")) + self.say(peer, "pusher:ping", data={}) if peer.fault == "ahead" else b""
                self.send(peer, first + ahead + self.say(peer, "pusher:connection_established", data=hello))
            elif peer.fault == "no such application":
                self.fault(peer.fault)
                accepted = ws.send(AcceptConnection())
                self.send(peer, accepted + self.say(peer, "pusher:error", data={"message": "no", "code": 4001}))
            elif peer.fault == "close":
                self.fault(peer.fault)
                self.send(peer, ws.send(AcceptConnection()) + ws.send(CloseConnection(code=4001)))
            else:
                super().opened(peer, ws)
        elif isinstance(event, CloseConnection):
            self.close(peer)
        elif isinstance(event, TextMessage):
            message = json.loads(event.data)
            if message["event"] == "pusher:pong":
                self.pongs += 1
            elif message["event"] == "pusher:subscribe":
                self.subscribe(peer, message["data"]["channel"])
        elif isinstance(event, Pong):
            self.pongs += 1

    def subscribe(self, peer: Peer, channel: str) -> None:
        if peer.fault and peer.fault != "ahead":
            self.fault(peer.fault)
        if peer.fault == "refuse subscribe":
            self.send(peer, self.say(peer, "pusher:subscription_error", channel=channel, data={"status": 401}))
        elif peer.fault == "error subscribe":
            self.send(peer, self.say(peer, "pusher:error", data='{"code":4009}'))
        elif peer.fault == "not JSON":
            self.send(peer, FRAME_FAULTS["not JSON"])
        elif peer.fault != "silent subscribe":
            self.subscribers.setdefault(channel, []).append(peer)
            self.send(peer, self.say(peer, "pusher_internal:subscription_succeeded", channel=channel, data="{}"))

    def request(self, peer: Peer, data: bytes) -> None:
        assert peer.http is not None
        peer.http.receive_data(data)
        body = b""
        while (event := peer.http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                peer.target = event.target
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if not signed("POST", peer.target.decode(), body, OURS.secret):
                    self.fault("bad request")
                self.published(peer, peer.http, json.loads(body))
                return

    def published(self, peer: Peer, http: h11.Connection, posted: dict[str, Any]) -> None:
        (channel,) = posted["channels"]
        fault = self.rules.push(self.pushes)
        self.pushes += 1
        if fault:
            self.fault(fault)
        if fault == "late":
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.later(self.rules.delay, lambda: self.deliver_late(channel, posted["data"]))
        elif fault not in ("refuse", "lose all"):
            first, *others = self.subscribers[channel]
            for other in others:
                self.send(other, self.say(other, "bench", channel=channel, data=posted["data"]))
            self.deliver_to(first, channel, posted["data"], fault)
        if fault == "hang up":
            self.close(peer)
            return
        status = 401 if fault in ("refuse", "refuse and deliver") else 200
        answer = http.send(h11.Response(status_code=status, headers=[("Content-Length", "2")])) or b""
        answer += http.send(h11.Data(data=b"{}")) or b""
        http.send(h11.EndOfMessage())
        self.send(peer, answer)
        http.start_next_cycle()

    def deliver_late(self, channel: str, data: str) -> None:
        self.under_way -= 1
        for other in self.subscribers[channel]:
            self.send(other, self.say(other, "bench", channel=channel, data=data))

    def deliver_to(self, peer: Peer, channel: str, data: str, fault: str) -> None:
        assert peer.ws is not None
        version = int(data.partition(".")[0])
        if fault == "wrong data":
            data = data[:-1] + "x"
        elif fault == "short data":
            data = data[:-1]
        frame = self.say(peer, "bench", channel="alien" if fault == "alien channel" else channel, data=data)
        held = self.held.pop(channel, None)
        if fault in ("withhold", "together"):
            self.held[channel] = peer, frame
        elif fault == "cut":
            self.send(peer, peer.ws.send(CloseConnection(code=4100)))
            self.subscribers[channel].remove(peer)  # nothing may follow a close
        elif fault == "reset":
            self.close(peer, reset=True)
        elif fault == "lose":
            pass
        elif fault == "twice":
            self.send(peer, frame + frame)
        elif fault == "twice apart":
            self.send(peer, frame)
            self.send(peer, frame)
        elif fault == "unasked":
            more = payload_of(version + 1, len(data)).decode()
            self.send(peer, frame + self.say(peer, "bench", channel=channel, data=more))
        elif fault == "stale":
            self.send(peer, self.say(peer, "bench", channel=channel, data=payload_of(3, len(data)).decode()) + frame)
        elif fault == "split":
            self.send(peer, frame[:50])
            time.sleep(0.005)
            self.send(peer, frame[50:])
        elif fault == "fragmented":
            text = frame[4:] if frame[1] == 126 else frame[2:]
            pieces = b"\x01\x05" + text[:5] + b"\x89\x00\x80\x7e" + (len(text) - 5).to_bytes(2, "big") + text[5:]
            self.send(peer, pieces)
        elif fault == "ping":
            self.send(peer, peer.ws.send(Ping(b"!")) + self.say(peer, "pusher:ping", data={}) + frame)
        elif fault == "other event":
            self.send(peer, self.say(peer, "pusher_internal:subscription_count", channel=channel, data="{}") + frame)
        elif fault == "error":
            self.send(peer, self.say(peer, "pusher:error", data={"code": 4301}))
        elif fault == "masked frame":
            self.send(peer, FRAME_FAULTS["masked frame"])
        elif held is not None and self.rules.delay:  # in order, in one write
            self.send(peer, held[1] + frame)
        elif held is not None:
            self.send(peer, frame)
            self.send(peer, held[1])
        else:
            self.send(peer, frame)


@contextlib.contextmanager
def misbehaving(rules: Rules) -> Iterator[MisbehavingPusher]:
    server = MisbehavingPusher(rules)
    server.thread.start()
    try:
        yield server
    finally:
        server.stop()


def fan_out(
    server: MisbehavingPusher, *, rate: float = 0.0, subscribers: int = SUBSCRIBERS, timeout: float = 30.0, **how: Any
) -> dict[str, Any]:
    """The document of `fanout`: one run, flat out or at a rate."""
    plan = Plan(flat_out=not rate, rate=rate, seconds=0.3, grace=0.2, connections=4, router=server.router)
    return fanning.run(
        Target(url=server.url, admin=""),
        Load(subscribers, timeout=timeout),
        replace(plan, **how),
        FAN_OUTS["pusher"],
        "",
        interrupt=Interrupt(),
        progress=Progress(Console(file=io.StringIO())),
    )


def run_of(body: dict[str, Any], server: MisbehavingPusher) -> dict[str, Any]:
    """Its run, whose sums have to balance."""
    (run,) = body["runs"]
    assert not server.faults["bad request"]
    assert run["events"] == server.pushes > 0
    assert run["expected"] == run["delivered"] + run["undelivered"] + run["lost"]
    assert isinstance(run, dict)
    return run


@pytest.mark.parametrize("rate", [0.0, 100.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_good_server_gets_a_clean_report(rate: float, channels: int) -> None:
    with misbehaving(Rules()) as server:
        body = fan_out(server, rate=rate, channels=channels, grace=WAIT_SECONDS)
        run = run_of(body, server)
    assert clean(run) and run["held"] == SUBSCRIBERS and not run["errors"]
    assert run["delivered"] == run["expected"] == run["events"] * SUBSCRIBERS // channels
    assert run["statuses"] == {200: run["events"]}
    assert run["mode"] == ("open loop" if rate else "flat out")
    if rate:
        assert run["events"] + run["unsent"] == 30
    assert run["to_first_ms"]["max"] > 0 and run["to_first_ms"]["p50"] <= run["to_last_ms"]["p50"]
    assert run["cpu_a_million"]["load"] == run["cpu_a_million"]["all"]


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        ("lose", {"lost": 1}),
        ("twice", {"duplicates": 1}),
        ("twice apart", {"duplicates": 1}),
        ("wrong data", {"wrong_data": 1}),
        ("short data", {"wrong_data": 1}),
        ("alien channel", {"strays": 1, "lost": 1}),
        ("unasked", {"unexpected": 1}),
        ("withhold", {"reordered": 1}),
        ("lose all", {"lost": SUBSCRIBERS}),
        ("refuse", {"refused": 1}),
        ("refuse and deliver", {"refused": 1, "refused_but_arrived": SUBSCRIBERS}),
        ("hang up", {"unanswered": 1, "refused_but_arrived": SUBSCRIBERS}),
    ],
)
def test_what_goes_wrong_with_events_is_told(fault: str, counts: dict[str, int]) -> None:
    with misbehaving(Rules(push=every(10, fault))) as server:
        # not the last event, after which nothing would be out of order
        run = run_of(fan_out(server, rate=100, seconds=0.25), server)
    times = server.faults[fault]
    assert times > 0
    names = ("lost", "duplicates", "reordered", "wrong_data", "strays", "unexpected", "refused", "unanswered")
    names += ("refused_but_arrived", "undelivered")
    assert {name: run[name] for name in names if run[name]} == {name: count * times for name, count in counts.items()}
    assert run["held"] == SUBSCRIBERS and not clean(run)


@pytest.mark.parametrize("fault", ["split", "fragmented", "ping", "other event", "together", "stale"])
@pytest.mark.parametrize("size", [20, 120])
def test_what_a_server_may_do(fault: str, size: int) -> None:
    rules = Rules(push=every(5, fault), delay=1.0)
    with misbehaving(rules) as server:
        run = run_of(fan_out(server, rate=100, seconds=0.25, payload=size, grace=WAIT_SECONDS), server)
    assert server.faults[fault] > 0
    assert clean(run), run
    if fault == "ping":
        assert server.pongs == 2 * server.faults[fault]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("cut", "closed with 4100"),
        ("reset", "ECONNRESET"),
        ("error", "pusher:error 4301"),
        ("masked frame", "bad frame"),
    ],
)
def test_subscribers_that_are_cut_off(fault: str, why: str) -> None:
    with misbehaving(Rules(push=every(10, fault))) as server:
        run = run_of(fan_out(server, rate=100, seconds=0.25), server)
    assert run["drops"] == {why: server.faults[fault]}
    assert run["held"] == SUBSCRIBERS - server.faults[fault]
    assert run["undelivered"] > 0 and run["lost"] == 0 and not clean(run)


def test_subscribers_that_fail() -> None:
    faults = ["", "ahead", "no such application", "close", "refuse subscribe", "error subscribe", "silent subscribe"]
    faults += ["not JSON", "refuse", "garbage"]
    with misbehaving(Rules(lambda number: faults[number % len(faults)])) as server:
        body = fan_out(server, subscribers=20, timeout=1.0, rate=20.0)
        run = run_of(body, server)
    assert body["setup"]["ready"] == run["held"] == 4 and clean(run)
    assert run["expected"] == 4 * run["events"]
    assert body["setup"]["failures"] == {
        "connection_established: pusher:error 4001": 2,
        "connection_established: closed with 4001": 2,
        "subscription_succeeded: pusher:subscription_error 401": 2,
        "subscription_succeeded: pusher:error 4009": 2,
        "subscription_succeeded: no answer in time": 2,
        "subscription_succeeded: not JSON": 2,
        "upgrade: HTTP 503": 2,
        "upgrade: not HTTP": 2,
    }
    assert server.pongs == 4


def test_nobody_can_be_set_up() -> None:
    with (
        misbehaving(Rules(lambda number: "close")) as server,
        pytest.raises(BenchError, match=r"6 x .*closed with 4001"),
    ):
        fan_out(server)


@pytest.mark.parametrize(("channels", "in_flight"), [(1, 1), (1, 3), (3, 2)])
def test_flat_out_does_not_run_ahead_of_the_subscribers(channels: int, in_flight: int) -> None:
    with misbehaving(Rules(push=lambda number: "late", delay=0.02)) as server:
        body = fan_out(server, channels=channels, in_flight=in_flight, connections=16, grace=WAIT_SECONDS)
        run = run_of(body, server)
    assert clean(run) and run["events"] > channels * in_flight
    assert 0 < server.most_under_way <= channels * in_flight


def test_what_never_arrives_holds_up_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with misbehaving(Rules(push=lambda number: "lose all" if number < 2 else "")) as server:
        run = run_of(fan_out(server, seconds=2.6), server)
    assert run["lost"] == 2 * SUBSCRIBERS and run["delivered"] > 0


def test_events_that_can_not_be_posted() -> None:
    with misbehaving(Rules()) as server, deaf_port() as port:
        (run,) = fan_out(server, router=f"http://127.0.0.1:{port}")["runs"]
        assert run["events"] == run["unanswered"] or not run["events"]
        assert not clean(run) and "ECONNREFUSED" in run["errors"]
        with pytest.raises(BenchError, match="can't post events"):
            fan_out(server, router="http://no.such.host.invalid:1")


# ---- the command


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--channels", "9", "--subscribers", "8"), "--channels"),
        (("--no-flat-out",), "--no-flat-out"),
        (("--payload", "19"), "--payload"),
        (("--url", "ws://127.0.0.1:1/"), "--apps"),
        (("--in-flight", "0"), "--in-flight"),
    ],
)
def test_arguments_that_are_wrong(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(main, ["fanout", *arguments])
    assert result.exit_code == 2 and text in result.output


@pytest.mark.parametrize(("fault", "code"), [("", 0), ("lose", 1), ("refuse", 1), ("cut", 1)])
def test_exit_codes(fault: str, code: int, tmp_path: Path) -> None:
    apps, file = tmp_path / "apps.json", tmp_path / "fanout.json"
    apps.write_text(json.dumps({"applications": [{"id": 1, "name": "n", "key": OURS.key, "secret": OURS.secret}]}))
    with misbehaving(Rules(push=lambda number: fault if number == 3 else "")) as server:
        command = ["fanout", "--url", server.url, "--admin", "", "--router", server.router, "--apps", str(apps)]
        command += ["--subscribers", "6", "--seconds", "0.3", "--no-flat-out", "--rate", "50", "--grace", "0.2"]
        result = CliRunner().invoke(main, [*command, "--json", str(file)])
    assert result.exit_code == code, result.output
    body = json.loads(file.read_text())
    assert not body["interrupted"] and body["runs"][0]["mode"] == "open loop"
    assert "POST to the last" in result.output


def bench(*arguments: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "farm", "bench", *arguments, "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    body = json.loads(file.read_text())
    assert isinstance(body, dict)
    return body


def test_a_farm_end_to_end(tmp_path: Path) -> None:
    options = ("--subscribers", "90", "--processes", "2", "--seconds", "0.5", "--rate", "40", "--out", str(tmp_path))
    body = bench("fanout", *options, file=tmp_path / "one.json")
    assert body["setup"]["ready"] == 90
    flat, paced = body["runs"]
    for run in (flat, paced):
        assert clean(run), run
        assert run["delivered"] == 90 * run["events"] > 0 and run["held"] == 90
        assert set(run["statuses"]) == {"200"}
        assert {"router", "workers", "load subscribers", "load app servers"} <= set(run["usage"]["groups"])
        assert run["usage"]["groups"]["load subscribers"]["processes"] == 2
    assert paced["events"] + paced["unsent"] == 20
    assert set(body["memory_a_subscriber"]) >= {"router", "workers"}
    drawn = shown(body)
    assert "deliveries/s" in drawn.headline and [chart.kind for chart in drawn.charts] == ["bar", "bar"]
    assert {path.suffix for path in tmp_path.iterdir()} >= {".json", ".md", ".svg"}


def test_many_channels_of_a_farm(tmp_path: Path) -> None:
    options = ("--subscribers", "60", "--channels", "20", "--seconds", "0.5")
    (run,) = bench("fanout", *options, file=tmp_path / "many.json")["runs"]
    assert clean(run), run
    assert run["delivered"] == 3 * run["events"] > 0


# ---- the comparison


@pytest.mark.parametrize("name", [name for name, peer in peers.PEERS.items() if peer.fans_out])
def test_a_peer_fans_out(name: str) -> None:
    tools = Tools(os.environ.get("PEERS_PYTHON", sys.executable), devices=30)
    try:
        peers.PEERS[name].find(tools)
    except NotInstalledError as error:
        missing(f"{peers.PEERS[name].title}, {error},")
    plan = comparing.Plan((name,), 30, 0, 0.3, 4, subscribers=30, tools=tools, grace=WAIT_SECONDS)
    contestant = Contestant(name, peers.PEERS[name].title, 30, peers.PEERS[name])
    found = comparing._round(contestant, plan, tools, Interrupt(), Progress(Console(file=io.StringIO())))
    run = found["fanout"]["run"]
    assert clean(run), run
    assert run["delivered"] == run["events"] * 30 > 0
    assert found["figures"]["fanout_rate"] > 0 and found["figures"]["fanout_p99_ms"] > 0


def test_the_table_of_fan_outs() -> None:
    def server(title: str, rounds: list[dict[str, Any]], fans_out: bool, missing: str = "") -> dict[str, Any]:
        rate = {"fanout_rate": 1000.0, "fanout_p50_ms": 1.0, "fanout_p99_ms": 2.0, "fanout_cpu_a_million": 7.5}
        return {"title": title, "rounds": rounds, "median": rate, "fans_out": fans_out, "missing": missing, "error": ""}

    run = {"held": 30, "lost": 2}
    servers = [
        server("farm", [{"fanout": {"run": run}}, {"fanout": {"run": run}}], True),
        server("ws", [{}], False),
        server("nats", [], True, "not here"),
    ]
    (table,) = compare_view._fan_outs(servers)
    assert [row[:2] for row in table.rows] == [
        ["farm", "30"],
        ["ws", "one push, one device"],
        ["nats", "not installed"],
    ]
    assert table.rows[0][2:] == ["1,000", "1.00 ms", "2.00 ms", "7.50", "4"]
    assert compare_view._fan_outs(servers[1:]) == []
    assert Counter(FIGURES)["fanout_cpu_a_million"] == 1
    nothing = fanout_figures({"run": None})
    assert set(nothing.values()) == {None} and set(itertools.chain(nothing)) <= set(FIGURES)
