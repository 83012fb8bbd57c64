"""A load process of devices: up to 18,000 WebSocket clients on one plain epoll loop.

It shares the machine with the farm that it measures, so it does what a device does and no more: no task and
no parser per connection, reads of one system call, answers that are recognised by fixed offsets. One
process is started by `bench.crew` as `python -m bench.devices FD` and talks over that descriptor:

    <- begin    what to connect to, how many      -> up
    <- go       connect them all                  -> progress ..., ready with the samples of every set-up
    <- halt     connect no more                   -> ready
    <- collect                                    -> collected, with every notification since the last time
    <- stop     reset all connections and end
"""

import gc
import os
import select
import socket
import sys
import time
from typing import Any, Final

from bench import frames
from bench.frames import PeerError
from bench.link import Link, LinkClosedError
from bench.sockets import Address, Outbox, error_name, open_connection, reset_on_close, source_of
from bench.tally import Seen, SetUps

READ_BYTES: Final = 4096
EVENTS: Final = 512
PROGRESS_SECONDS: Final = 0.2
TICK_SECONDS: Final = 0.1

UPGRADE: Final = 0
HELLO: Final = 1
REGISTER: Final = 2
READY: Final = 3
GONE: Final = 4
STAGES: Final = ("upgrade", "hello", "register")


class Device:
    """One connection. `rest` and `parts` are there only while a frame or a fragmented message is incomplete."""

    __slots__ = ("channel", "due", "index", "parts", "rest", "stage")

    def __init__(self, index: int, due: float) -> None:
        self.index = index
        self.due = due
        self.stage = UPGRADE
        self.channel = b""
        self.rest = b""
        self.parts: list[bytes] | None = None


class Fleet:
    """The devices of this process and their loop."""

    def __init__(self, link: Link, order: dict[str, Any]) -> None:
        self.link = link
        self.address = Address(*order["address"])
        self.first: int = order["first"]
        self.wanted: int = order["devices"]
        self.bare: bool = order["bare"]
        self.rate: float = order["rate"]
        self.opening_limit: int = order["opening"]
        self.timeout: float = order["timeout"]
        self.endpoints_every: int = order["endpoints_every"]
        self.request = frames.upgrade_request(order["host"], order["path"])
        self.epoll = select.epoll()
        self.outbox = Outbox(self.epoll)
        self.devices: dict[int, Device] = {}
        self.opening: dict[int, Device] = {}  # oldest first: dicts keep their order
        self.acks: list[tuple[int, Device, bytes]] = []
        self.opened = 0
        self.ready = 0
        self.started = 0.0
        self.going = self.reported = self.stopped = False
        self.next_progress = 0.0
        self.set_ups = SetUps()
        self.seen = Seen()

    # ---- the loop

    def run(self) -> None:
        control = self.link.sock.fileno()
        self.epoll.register(control, select.EPOLLIN)
        self.link.send("up")
        while not self.stopped:
            if self.going:
                self._open_due()
            for descriptor, events in self.epoll.poll(self._patience(), EVENTS):
                if descriptor == control:
                    self._commands()
                elif (device := self.devices.get(descriptor)) is not None:
                    self._event(descriptor, device, events)
            # after all that was ready is read: an arrival is stamped when it came, not after others' acks
            for descriptor, device, ack in self.acks:
                self._send(descriptor, device, ack)
            self.acks.clear()
            self._look_around()
        for descriptor in self.devices:
            reset_on_close(descriptor, self.address.family)

    def _patience(self) -> float:
        if self.going and self.opened < self.wanted and len(self.opening) < self.opening_limit:
            return min(max(self._due(self.opened) - time.monotonic(), 0.0), TICK_SECONDS)
        return TICK_SECONDS if self.going else PROGRESS_SECONDS

    def _commands(self) -> None:
        for word in self.link.read():
            if word.kind == "go":
                self.going, self.started = True, time.monotonic()
            elif word.kind == "halt":
                self._report_ready()
            elif word.kind == "collect":
                self.seen.report(self.link, self.ready)
            elif word.kind == "stop":
                self.stopped = True

    def _look_around(self) -> None:
        now = time.monotonic()
        while self.opening:
            descriptor, device = next(iter(self.opening.items()))
            if now - device.due < self.timeout:
                break
            self._drop(descriptor, device, "no answer in time")
        if self.going and self.opened == self.wanted and not self.opening:
            self._report_ready()
        if now >= self.next_progress:
            self.next_progress = now + PROGRESS_SECONDS
            self.link.send("progress", ready=self.ready, failed=self.set_ups.failures.total(), arrived=len(self.seen))

    # ---- setting up

    def _due(self, number: int) -> float:
        return self.started + number / self.rate if self.rate else self.started

    def _open_due(self) -> None:
        now = time.monotonic()
        while self.opened < self.wanted and len(self.opening) < self.opening_limit and self._due(self.opened) <= now:
            device = Device(self.first + self.opened, self._due(self.opened) if self.rate else time.monotonic())
            self.opened += 1
            try:
                descriptor = open_connection(self.address, source_of(device.index, self.address))
            except OSError as error:
                self.set_ups.failures[f"connect: {error_name(error)}"] += 1
                continue
            self.devices[descriptor] = self.opening[descriptor] = device
            self.epoll.register(descriptor, select.EPOLLIN)
            self._send(descriptor, device, self.request)

    def _set_up(self, descriptor: int, device: Device) -> None:
        now = time.monotonic()
        device.stage = READY
        del self.opening[descriptor]
        self.ready += 1
        self.set_ups.done(device.due, now)

    def _answered(self, descriptor: int, device: Device, payload: bytes) -> None:
        """A text message before the device is set up: the answer to its last command, or a ping."""
        if device.stage == HELLO:
            if frames.check_hello(payload):
                device.stage = REGISTER
                device.channel = _channel_id()
                self._send(descriptor, device, frames.register(device.channel))
        elif (endpoint := frames.endpoint_of(payload)) is not None:
            if self.endpoints_every and device.index % self.endpoints_every == 0:
                self.set_ups.endpoint(device.index, endpoint)
            self._set_up(descriptor, device)

    # ---- reading and writing

    def _event(self, descriptor: int, device: Device, events: int) -> None:
        if events & select.EPOLLOUT:
            try:
                self.outbox.flush(descriptor)
            except OSError as error:
                self._drop(descriptor, device, error_name(error))
                return
        if not events & ~select.EPOLLOUT:
            return
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(descriptor, device, error_name(error))
            return
        if not data:
            self._drop(descriptor, device, "closed without a close frame")
            return
        try:
            self._received(descriptor, device, data)
        except PeerError as error:
            self._drop(descriptor, device, str(error))

    def _received(self, descriptor: int, device: Device, data: bytes) -> None:
        if device.rest:
            data, device.rest = device.rest + data, b""
        elif device.parts is None and (payload := frames.single_text(data)) is not None and device.stage != UPGRADE:
            self._text(descriptor, device, payload)
            return
        if device.stage == UPGRADE:
            end = frames.upgrade_end(data)
            if not end:
                device.rest = data
                return
            data = data[end:]
            if self.bare:
                self._set_up(descriptor, device)
            else:
                device.stage = HELLO
                self._send(descriptor, device, frames.HELLO)
        parts = device.parts or []
        messages, device.rest = frames.split_frames(data, parts)
        device.parts = parts or None
        for opcode, payload in messages:
            if device.stage == GONE:
                return
            if opcode == frames.PING:
                self._send(descriptor, device, frames.client_frame(payload, frames.PONG))
            elif opcode == frames.CLOSE:
                self._send(descriptor, device, frames.client_frame(payload[:2], frames.CLOSE))
                self._drop(descriptor, device, f"closed with {int.from_bytes(payload[:2], 'big') or 1005}")
            elif opcode != frames.PONG:
                self._text(descriptor, device, payload)

    def _text(self, descriptor: int, device: Device, payload: bytes) -> None:
        if device.stage != READY:
            self._answered(descriptor, device, payload)
            return
        updates = frames.updates_of(payload)
        if not updates:
            return
        now = time.monotonic_ns() // 1000
        for channel, version in updates:
            if channel != device.channel:
                self.seen.strays += 1
                continue
            self.seen.arrived(device.index, version, now)
            self.acks.append((descriptor, device, frames.ack(channel, version)))

    def _send(self, descriptor: int, device: Device, data: bytes) -> None:
        if device.stage == GONE:
            return
        try:
            self.outbox.send(descriptor, data)
        except OSError as error:
            self._drop(descriptor, device, error_name(error))

    def _drop(self, descriptor: int, device: Device, why: str) -> None:
        if device.stage == GONE:
            return
        if device.stage == READY:
            self.ready -= 1
            self.seen.dropped(device.index, why)
        else:
            self.set_ups.failures[f"{STAGES[device.stage]}: {why}"] += 1
        device.stage = GONE
        self.opening.pop(descriptor, None)
        self.outbox.forget(descriptor)
        del self.devices[descriptor]
        os.close(descriptor)

    def _report_ready(self) -> None:
        self.going = False
        if not self.reported:
            self.reported = True
            self.set_ups.report(self.link, self.ready)


def _channel_id() -> bytes:
    """A random UUIDv4, lower case, with hyphens; `uuid.uuid4` takes four times as long."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}".encode()


def main(descriptor: int) -> None:
    gc.disable()  # nothing here is cyclic, and a collection would show as latency of the farm
    link = Link(socket.socket(fileno=descriptor))
    try:
        Fleet(link, link.wait().fields).run()
    except LinkClosedError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
