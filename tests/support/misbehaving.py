"""A server of SimplePush and WebPush on wsproto and h11, in a thread, that breaks the rules as it is told and counts
how often. A device is of the dialect that its hello names.

It is no part of what is measured: the load generator of the bench is pointed at it, and has to report just the faults
that were made. Faults are words, chosen by the number of a device's connection and by the number of a push.
"""

import base64
import contextlib
import heapq
import itertools
import json
import selectors
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, RejectConnection, Request, TextMessage

ALIEN = "0f9e8d7c-6b5a-4433-8221-100f0e0d0c0b"
"""A channel that no device has."""

OPENING_FAULTS = {
    "garbage": b"SSH-2.0-nonsense\r\n\r\n",
    "wrong accept": b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
    "stall upgrade": b"",
    "stall in upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websock",
}
"""What is answered to an upgrade."""

FRAME_FAULTS = {
    "masked frame": b"\x81\x82\0\0\0\0{}",
    "reserved bit": b"\xc1\x02{}",
    "loose continuation": b"\x80\x02{}",
    "not JSON": b"\x81\x03{{{",
}
"""What is sent instead of the answer to a register."""

STAMP_BYTES = 9
"""The version that the body of a WebPush message begins with."""

STATUS_FAULTS = {"refuse": 503, "fail": 500, "forget the token": 404}


@dataclass
class Rules:
    """What the server does wrong: `device` by the number of a device's connection, `push` by the number of a push,
    `back` by the number of a return (a hello with a uaid that it gave out). `delay`: s, for pushes with that fault.
    `hold`: s from a device's set-up to a fault of its connection that comes later."""

    device: Callable[[int], str] = lambda number: ""
    push: Callable[[int], str] = lambda number: ""
    back: Callable[[int], str] = lambda number: ""
    delay: float = 0.0
    hold: float = 0.0


@dataclass
class Peer:
    """A connection of the server: a device (`ws`) or an app server (`http`)."""

    sock: socket.socket
    number: int
    ws: WSConnection | None = None
    http: h11.Connection | None = None
    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    webpush: bool = False
    fault: str = ""
    uaid: str = ""
    closed: bool = False


@dataclass
class Misbehaving:
    """The server. `acks`: of (channel, version); `sources`: devices by the address that they came from; `pings`: those
    of devices; `stored`: what waits for devices that were away: the newest version of each channel, or, of WebPush,
    each message by its version."""

    rules: Rules
    faults: Counter[str] = field(default_factory=Counter)
    acks: Counter[tuple[str, int | str]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    due: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.device_port, self.router_port = (socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2))
        self.wake, self.waker = socket.socketpair()
        self.channels: dict[str, tuple[str, str]] = {}
        self.keys: dict[str, str] = {}
        self.live: dict[str, Peer] = {}
        self.stored: dict[str, dict[str, Any]] = {}
        self.withheld: deque[tuple[Peer, bytes]] = deque()
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.timer_numbers = itertools.count()
        self.devices = self.returns = self.pushes = self.pings = 0
        for sock in (self.device_port, self.router_port, self.wake):
            self.selector.register(sock, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.run)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.device_port.getsockname()[1]}/"

    # ---- the loop

    def run(self) -> None:
        while True:
            wait = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, _ in self.selector.select(wait):
                if key.fileobj is self.wake:
                    return
                if key.data is None:
                    self.accept(key.fileobj is self.device_port)
                elif not key.data.closed:
                    self.read(key.data)
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.timer_numbers), action))

    def accept(self, is_device: bool) -> None:
        sock, (host, _) = (self.device_port if is_device else self.router_port).accept()
        if is_device:
            peer = Peer(sock, self.devices, ws=WSConnection(ConnectionType.SERVER))
            peer.fault = self.rules.device(self.devices)
            self.devices += 1
            self.sources[host] += 1
        else:
            peer = Peer(sock, 0, http=h11.Connection(h11.SERVER))
        self.selector.register(sock, selectors.EVENT_READ, peer)

    def read(self, peer: Peer) -> None:
        try:
            data = peer.sock.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self.close(peer)
        elif peer.ws is not None:
            peer.ws.receive_data(data)
            for event in peer.ws.events():
                if not peer.closed:
                    self.command(peer, peer.ws, event)
        else:
            self.request(peer, data)

    def close(self, peer: Peer, reset: bool = False) -> None:
        if peer.closed:
            return
        peer.closed = True
        if self.live.get(peer.uaid) is peer:
            del self.live[peer.uaid]
        self.selector.unregister(peer.sock)
        if reset:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()

    def send(self, peer: Peer, data: bytes) -> None:
        with contextlib.suppress(OSError):
            peer.sock.sendall(data)

    def fault(self, kind: str) -> None:
        self.faults[kind] += 1

    # ---- devices

    def command(self, peer: Peer, ws: WSConnection, event: Event) -> None:
        if isinstance(event, Request):
            self.opened(peer, ws)
        elif isinstance(event, CloseConnection):
            self.close(peer)
        elif isinstance(event, TextMessage):
            message = json.loads(event.data)
            kind = message.get("messageType", "ping")
            if kind == peer.fault:
                self.fault(kind)
                self.close(peer)
            elif f"silent {kind}" == peer.fault:
                self.fault(peer.fault)
            elif f"refuse {kind}" == peer.fault:
                self.fault(peer.fault)
                self.send(peer, ws.send(TextMessage(json.dumps({**message, "status": 503, "error": "no"}))))
            elif kind == "ping":
                self.pings += 1
                self.send(peer, ws.send(TextMessage("{}")))
            elif kind == "hello":
                self.hello(peer, ws, message)
            elif kind == "register":
                self.register(peer, ws, message)
            elif kind == "ack":
                for update in message["updates"]:
                    self.acks[update["channelID"], update["version"]] += 1
                    kept = self.stored.get(peer.uaid, {})
                    if peer.webpush:
                        kept.pop(update["version"], None)
                        if update.get("code") != 100:
                            self.fault("no code in an ack")
                    elif kept.get(update["channelID"]) == update["version"]:
                        del kept[update["channelID"]]

    def opened(self, peer: Peer, ws: WSConnection) -> None:
        if peer.fault == "refuse":
            self.fault("refuse")
            self.send(peer, ws.send(RejectConnection(status_code=503, headers=[(b"Content-Length", b"0")])))
            self.close(peer)
        elif peer.fault in OPENING_FAULTS:
            self.fault(peer.fault)
            self.send(peer, OPENING_FAULTS[peer.fault])
        else:
            self.send(peer, ws.send(AcceptConnection(subprotocol="push-notification")))

    def hello(self, peer: Peer, ws: WSConnection, message: dict[str, object]) -> None:
        asked = str(message.get("uaid") or "")
        fault = ""
        peer.webpush = message.get("use_webpush") is True
        if peer.fault == "not WebPush":
            self.fault(peer.fault)
            del message["use_webpush"]
        if asked in self.stored:
            fault = self.rules.back(self.returns)
            self.returns += 1
            peer.uaid = asked
            if fault:
                self.fault(fault)
        else:
            peer.uaid = f"{peer.number + 1:032x}"
            self.stored[peer.uaid] = {}
        self.live[peer.uaid] = peer
        # pings of both kinds ahead of the answer: a device has to bear them
        answer = ws.send(Ping(b"?")) + ws.send(TextMessage("{}"))
        answer += ws.send(TextMessage(json.dumps({**message, "uaid": peer.uaid, "status": 200})))
        kept = self.stored[peer.uaid]
        if peer.webpush:
            notes = list(kept.values())
        else:
            waiting = [
                {"channelID": channel, "version": version - (fault == "older")} for channel, version in kept.items()
            ]
            notes = [{"messageType": "notification", "updates": waiting}] if waiting else []
        for note in notes if fault != "forget" else ():
            answer += ws.send(TextMessage(json.dumps(note))) * (2 if fault == "twice" else 1)
        self.send(peer, answer)

    def register(self, peer: Peer, ws: WSConnection, message: dict[str, str]) -> None:
        if peer.fault in FRAME_FAULTS:
            self.fault(peer.fault)
            self.send(peer, FRAME_FAULTS[peer.fault])
            return
        path = f"{'/wpush/v2' if peer.webpush else '/update'}/t{len(self.channels)}"
        self.keys[path] = message.get("key", "")
        self.channels[path] = peer.uaid, message["channelID"]
        endpoint = f"http://127.0.0.1:{self.router_port.getsockname()[1]}{path}"
        self.send(peer, ws.send(TextMessage(json.dumps({**message, "status": 200, "pushEndpoint": endpoint}))))
        if peer.fault in ("cut later", "reset later", "malformed later"):
            self.later(self.rules.hold, lambda: self.break_later(peer, ws))

    def break_later(self, peer: Peer, ws: WSConnection) -> None:
        self.fault(peer.fault)
        if peer.fault == "cut later":
            self.send(peer, ws.send(CloseConnection(code=1012)))
        elif peer.fault == "reset later":
            self.close(peer, reset=True)
        else:
            self.send(peer, FRAME_FAULTS["masked frame"])

    # ---- app servers

    def request(self, peer: Peer, data: bytes) -> None:
        assert peer.http is not None
        peer.http.receive_data(data)
        body = b""
        while (event := peer.http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                peer.target, peer.headers = event.target, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if peer.target.startswith(b"/wpush/"):
                    self.check(peer)
                    self.pushed(peer, peer.http, int.from_bytes(body[:STAMP_BYTES], "big"), body)
                else:
                    form = parse_qs(body.decode())
                    self.pushed(peer, peer.http, int(form["version"][0]), form.get("data", [""])[0].encode())
                return

    def check(self, peer: Peer) -> None:
        """The headers of a WebPush push, and that it is signed by whom the device registered."""
        headers, key = peer.headers, self.keys[peer.target.decode()]
        scheme, _, fields = headers.get(b"authorization", b"").decode().partition(" ")
        signed = dict(field.strip().split("=", 1) for field in fields.split(",") if "=" in field)
        good = scheme == "vapid" and signed.get("t", "").count(".") == 2 and signed.get("k") == key != ""
        if not (good and int(headers[b"ttl"]) > 0 and headers[b"content-encoding"] == b"aes128gcm"):
            self.fault("bad request")

    def pushed(self, peer: Peer, http: h11.Connection, version: int, data: bytes) -> None:
        webpush = peer.target.startswith(b"/wpush/")
        uaid, channel = self.channels[peer.target.decode()]
        device = self.live.get(uaid)
        fault = self.rules.push(self.pushes)
        self.pushes += 1
        self.due.append(version)
        if fault:
            self.fault(fault)
        if device is not None:
            self.deliver(device, channel, version, data, fault)
        elif fault not in STATUS_FAULTS and webpush:
            note = self.message(channel, data, fault)
            self.stored[uaid][note["version"]] = note
        elif fault not in STATUS_FAULTS:
            kept = self.stored[uaid]
            kept[channel] = max(version, kept.get(channel, 0))
        if fault == "hang up":
            self.close(peer)
            return
        if fault == "nonsense":
            self.send(peer, b"nonsense\r\n\r\n")
            return
        if fault == "never answer":
            return
        status = STATUS_FAULTS.get(fault, 202 if fault in ("store", "cut") or device is None else 200)
        if webpush and fault not in STATUS_FAULTS:
            status = 201
        headers = [("Location", f"http://127.0.0.1/m/{self.pushes}"), ("Content-Length", "2")]
        headers = [*headers, *((("Connection", "close"),) if fault == "last" else ())]
        answer = http.send(h11.Response(status_code=status, headers=headers))
        answer = (answer or b"") + (http.send(h11.Data(data=b"{}")) or b"")
        http.send(h11.EndOfMessage())
        if fault == "slow answer":
            self.later(self.rules.delay, lambda: self.send(peer, answer))
            http.start_next_cycle()
            return
        if fault == "answer twice":
            answer *= 2
        cut = 40 if fault == "piecemeal" else 0
        self.send(peer, answer[:cut])
        self.send(peer, answer[cut:])
        if fault == "last":
            self.close(peer)
        else:
            http.start_next_cycle()

    def message(self, channel: str, body: bytes, fault: str) -> dict[str, Any]:
        """A WebPush message to a device."""
        changed = {"wrong data": body[:-1] + bytes((body[-1] ^ 1,)), "short data": body[:-1]}.get(fault, body)
        if fault == "wrong version":
            changed = (7).to_bytes(STAMP_BYTES, "big") + body[STAMP_BYTES:]
        note: dict[str, Any] = {"messageType": "notification", "channelID": channel, "version": f"{self.pushes:016x}"}
        note["data"] = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
        note["headers"] = {"encoding": "aesgcm" if fault == "wrong encoding" else "aes128gcm"}
        if fault == "no data":
            del note["data"], note["headers"]
        elif fault == "wrong channel":
            note["channelID"] = ALIEN
        return note

    def notification(self, channel: str, version: int, data: bytes, fault: str) -> dict[str, Any]:
        """One of SimplePush."""
        update: dict[str, object] = {"channelID": channel, "version": version}
        if data:
            text = data.decode()
            update["data"] = {"wrong data": "x" + text[1:], "short data": text[:-1]}.get(fault, text)
        if fault == "no data":
            del update["data"]
        elif fault == "wrong version":
            update["version"] = 7
        elif fault == "wrong channel":
            update["channelID"] = ALIEN
        return {"messageType": "notification", "updates": [update]}

    def deliver(self, device: Peer, channel: str, version: int, data: bytes, fault: str) -> None:
        assert device.ws is not None
        if device.webpush:
            note = self.message(channel, data, fault)
        else:
            note = self.notification(channel, version, data, fault)
        text = json.dumps(note, separators=(",", ":"))
        if fault == "cut":
            device.fault = "cut"
            self.send(device, device.ws.send(CloseConnection(code=1001)))
            return
        if fault in ("lose", "hang up", "store") or fault in STATUS_FAULTS or device.fault == "cut":
            return
        frame = device.ws.send(TextMessage(text))
        if fault == "withhold":
            self.withheld.append((device, frame))
        elif fault == "delay":
            self.later(self.rules.delay, lambda: self.send(device, frame))
        else:
            while self.withheld:
                self.send(*self.withheld.popleft())
            self.send(device, frame[:9])
            self.send(device, frame[9:])
            if fault == "duplicate":
                self.send(device, frame)

    def stop(self) -> None:
        self.waker.send(b"!")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            sock.close()
        self.waker.close()
        self.selector.close()


@contextlib.contextmanager
def misbehaving(rules: Rules) -> Iterator[Misbehaving]:
    """The server, while the block runs."""
    server = Misbehaving(rules)
    server.thread.start()
    try:
        yield server
    finally:
        server.stop()


def every(step: int, fault: str) -> Callable[[int], str]:
    """The fault at the third of each so many."""
    return lambda number: fault if number % step == 3 % step else ""
