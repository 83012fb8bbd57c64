"""A SimplePush server on wsproto and h11, in a thread, that breaks the rules as it is told and counts how often.

It is no part of what is measured: the load generator of the bench is pointed at it, and has to report just the faults
that were made. Faults are words, chosen by the number of a device's connection and by the number of a push.
"""

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
    fault: str = ""
    uaid: str = ""
    closed: bool = False


@dataclass
class Misbehaving:
    """The server. `acks`: of (channel, version); `sources`: devices by the address that they came from; `pings`: those
    of devices; `stored`: the newest version of each channel whose device was away."""

    rules: Rules
    faults: Counter[str] = field(default_factory=Counter)
    acks: Counter[tuple[str, int]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    due: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.device_port, self.router_port = (socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2))
        self.wake, self.waker = socket.socketpair()
        self.channels: dict[str, tuple[str, str]] = {}
        self.live: dict[str, Peer] = {}
        self.stored: dict[str, dict[str, int]] = {}
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
                    if kept.get(update["channelID"]) == update["version"]:
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
        waiting = [
            {"channelID": channel, "version": version - (fault == "older")}
            for channel, version in self.stored[peer.uaid].items()
        ]
        if fault == "forget":
            waiting.clear()
        if waiting:
            notification = ws.send(TextMessage(json.dumps({"messageType": "notification", "updates": waiting})))
            answer += notification * (2 if fault == "twice" else 1)
        self.send(peer, answer)

    def register(self, peer: Peer, ws: WSConnection, message: dict[str, str]) -> None:
        if peer.fault in FRAME_FAULTS:
            self.fault(peer.fault)
            self.send(peer, FRAME_FAULTS[peer.fault])
            return
        path = f"/update/t{len(self.channels)}"
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
                peer.target = event.target
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                form = parse_qs(body.decode())
                self.pushed(peer, peer.http, int(form["version"][0]), form.get("data", [""])[0])
                return

    def pushed(self, peer: Peer, http: h11.Connection, version: int, data: str) -> None:
        uaid, channel = self.channels[peer.target.decode()]
        device = self.live.get(uaid)
        fault = self.rules.push(self.pushes)
        self.pushes += 1
        self.due.append(version)
        if fault:
            self.fault(fault)
        if device is not None:
            self.deliver(device, channel, version, data, fault)
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
        headers = [("Content-Length", "2"), *((("Connection", "close"),) if fault == "last" else ())]
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

    def deliver(self, device: Peer, channel: str, version: int, data: str, fault: str) -> None:
        assert device.ws is not None
        update: dict[str, object] = {"channelID": channel, "version": version}
        if data:
            update["data"] = {"wrong data": "x" + data[1:], "short data": data[:-1]}.get(fault, data)
        if fault == "no data":
            del update["data"]
        elif fault == "wrong version":
            update["version"] = 7
        elif fault == "wrong channel":
            update["channelID"] = ALIEN
        text = json.dumps({"messageType": "notification", "updates": [update]}, separators=(",", ":"))
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
