"""A server of the Pusher dialect that breaks the rules as it is told, and runs of `farm bench fanout` against it."""

import contextlib
import hashlib
import hmac
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11
from rich.console import Console
from wsproto import WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Pong, Request, TextMessage

from bench.interrupt import Interrupt
from bench.load.http_bytes import payload_of
from bench.load.protocols import FAN_OUTS
from bench.load.protocols.pusher import OURS
from bench.progress import Progress
from bench.runs import fanout as fanning
from bench.runs.fanout import Plan
from bench.runs.load import Load
from bench.runs.speaking import Speaking
from bench.target import Target
from support.misbehaving import FRAME_FAULTS, Misbehaving, Peer, Rules

SUBSCRIBERS = 6
CHANNEL = "fanout-1"


def event(channel: str = CHANNEL, version: int = 7, size: int = 60, name: str = "bench", **more: object) -> bytes:
    return json.dumps({"event": name, "channel": channel, "data": payload_of(version, size).decode(), **more}).encode()


def signed(method: str, target: str, body: bytes, secret: str) -> bool:
    """Whether a request has the signature that Pusher's HTTP API asks for."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query))
    signature = query.pop("auth_signature")
    text = f"{method}\n{parts.path}\n" + "&".join(f"{name}={query[name]}" for name in sorted(query))
    fresh = abs(int(query["auth_timestamp"]) - time.time()) < 600
    right = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return fresh and signature == right and query["body_md5"] == hashlib.md5(body).hexdigest()


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

    def release(self, channel: str, frame: bytes) -> None:
        if channel in self.held and self.held[channel][1] is frame:
            self.send(*self.held.pop(channel))

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
            if fault == "together":  # and by itself, where no further event comes
                self.later(self.rules.delay, lambda: self.release(channel, frame))
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
def misbehaving_pusher(rules: Rules) -> Iterator[MisbehavingPusher]:
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
        Speaking(FAN_OUTS["pusher"]),
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
