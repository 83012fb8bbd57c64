"""The sockets of a load process's devices: opened, set up step by step, read, written and dropped.

It shares the machine with the farm that it measures, so it does what a device does and no more: no task, no parser and
no object per connection. What a connection is at is a number in an array by its descriptor; all that it sends and
receives is the business of a `bench.load.protocols`.
"""

import os
import select
import time
from array import array
from typing import Any, Final

from bench.load import frames
from bench.load.frames import PeerError
from bench.load.pings import Pings
from bench.load.protocols import protocol_of
from bench.load.protocols.base import DONE, SEED_BYTES, Scenario, Step
from bench.load.reconnect import Backoff, Reconnects
from bench.load.sockets import Address, Outbox, error_name, open_connection, reset_on_close, source_of
from bench.load.tally import Seen, SetUps
from bench.load.tls import TlsClients

READ_BYTES: Final = 4096
NOT_CONNECTED: Final = -1

GONE: Final = 0
UPGRADE: Final = 1
FIRST_STEP: Final = 2
READY: Final = DONE

CUT: Final = ""


class DeviceSockets:
    """Devices by their numbers, from 0 on; `first` is added for the world. `order`: the fields of `begin`."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.addresses = [Address(*address) for address in order["addresses"]]
        self.first: int = order["first"]
        self.timeout: float = order["timeout"]
        self.reconnects = Reconnects(Backoff(**order["backoff"]) if order["backoff"] else None)
        self.pings = Pings(order["ping"], self.timeout, time.monotonic())
        self.set_ups = SetUps()
        self.seen = Seen(judge=bool(order["payload"]))
        scenario = Scenario(
            order["host"], order["path"], order["channels"], order["payload"], os.urandom(SEED_BYTES), order["shared"]
        )
        self.protocol = protocol_of(order["protocol"], scenario, order["arguments"])
        self.transport = transport = self.protocol.transport
        self._head_end, self._single, self._split = transport.head_end, transport.single, transport.split
        self.epoll = select.epoll()
        self._sources: list[str] = order["sources"]
        self._endpoints_every: int = order["endpoints_every"]
        self._outbox = Outbox(self.epoll)
        self._tls = TlsClients() if order["tls"] else None

        # a device: stage and number by its descriptor, its descriptor by its number; nothing else while it is silent
        self.stages = array("H")
        self.numbers = array("i")
        self.descriptors = array("i")
        self.ready = 0
        self.opening: dict[int, float] = {}  # when it was due; oldest first: dicts keep their order
        self.replies: list[tuple[int, bytes]] = []
        self._unfinished: dict[int, tuple[bytes, list[bytes]]] = {}

    def more(self, devices: int) -> None:
        """Room for more devices."""
        self.descriptors.extend([NOT_CONNECTED] * devices)
        self.reconnects.grow(devices)

    def connected(self, number: int) -> int | None:
        """The descriptor of a device that is set up, None for one that is not."""
        descriptor = self.descriptors[number]
        return descriptor if descriptor != NOT_CONNECTED and self.stages[descriptor] == READY else None

    def cut(self, number: int) -> None:
        """Reset the connection of a device, if it is set up."""
        if (descriptor := self.connected(number)) is not None:
            reset_on_close(descriptor, self.addresses[0].family)
            self._drop(descriptor, CUT)

    def send_replies(self) -> None:
        """Answer what came; after all that was ready is read: an arrival is stamped when it came, not after acks."""
        for descriptor, reply in self.replies:
            self._send(descriptor, reply)
        self.replies.clear()

    def expire(self, now: float) -> None:
        """Drop devices that are not set up in time."""
        while self.opening:
            descriptor, due = next(iter(self.opening.items()))
            if now - due < self.timeout:
                break
            self._drop(descriptor, "no answer in time")

    def leave(self) -> None:
        """Let closing reset every connection."""
        for descriptor in self.descriptors:
            if descriptor != NOT_CONNECTED:
                reset_on_close(descriptor, self.addresses[0].family)

    # ---- setting up

    def _open(self, number: int, due: float) -> None:
        index = self.first + number
        address = self.addresses[host_of(index, len(self.addresses), self.reconnects.away.get(number))]
        try:
            descriptor = open_connection(address, source_of(index, address, self._sources))
        except OSError as error:
            self._failed(number, f"connect: {error_name(error)}")
            return
        if descriptor >= len(self.stages):
            more = descriptor + 1 - len(self.stages)
            self.stages.extend([GONE] * more)
            self.numbers.extend([0] * more)
        self.stages[descriptor] = UPGRADE if self._head_end is not None else FIRST_STEP
        self.numbers[descriptor] = number
        self.descriptors[number] = descriptor
        self.opening[descriptor] = due
        self.epoll.register(descriptor, select.EPOLLIN)
        if self._tls is None:
            self._send(descriptor, self._request(number))
        else:
            self._send_sealed(descriptor, self._tls.begin(descriptor))

    def _request(self, number: int) -> bytes:
        """What a device says first."""
        return self.protocol.request(self.first + number)

    def _step(self, descriptor: int, step: Step) -> None:
        """Take a step of the set-up."""
        number = self.numbers[descriptor]
        index = self.first + number
        if step.identity:
            self.seen.reassigned += self.reconnects.identify(number, step.identity)
        every = self._endpoints_every
        if step.endpoint and every and index % every == 0 and number not in self.reconnects.away:
            self.set_ups.endpoint(step.channel, step.endpoint, self.reconnects.known(number))
        if step.step == DONE:
            self._set_up(descriptor, number)
        else:
            self.stages[descriptor] = FIRST_STEP + step.step
        if step.send:
            self._send(descriptor, step.send)

    def _set_up(self, descriptor: int, number: int) -> None:
        due = self.opening.pop(descriptor)
        self.stages[descriptor] = READY
        self.ready += 1
        if (attempts := self.reconnects.back(number)) is None:
            self.set_ups.done(due, time.monotonic())
        else:
            self.seen.returned(self.first + number, microseconds(), attempts)

    def _failed(self, number: int, kind: str) -> None:
        """A set-up, or an attempt to come back, failed."""
        if self.reconnects.failed(number, time.monotonic()):
            self.seen.return_failure(kind)
        else:
            self.set_ups.failure(kind)

    # ---- reading and writing

    def _event(self, descriptor: int, events: int) -> None:
        if events & select.EPOLLOUT:
            try:
                self._outbox.flush(descriptor)
            except OSError as error:
                self._drop(descriptor, error_name(error))
                return
        if not events & ~select.EPOLLOUT:
            return
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(descriptor, error_name(error))
            return
        if not data:
            self._drop(descriptor, self.transport.broken_off)
            return
        if self._tls is not None:
            data = self._unsealed(descriptor, data, self._tls)
            if not data:
                return
        try:
            self._received(descriptor, data)
        except PeerError as error:
            self._drop(descriptor, str(error))

    def _unsealed(self, descriptor: int, data: bytes, tls: TlsClients) -> bytes:
        """The text of what has come, b"" if there is none (yet)."""
        try:
            text, answer, begins = tls.received(descriptor, data)
        except OSError as error:
            self._drop(descriptor, f"TLS: {error}")
            return b""
        if answer:
            self._send_sealed(descriptor, answer)
        if begins:
            self._send(descriptor, self._request(self.numbers[descriptor]))
        return text if self.stages[descriptor] != GONE else b""

    def _received(self, descriptor: int, data: bytes) -> None:
        stage = self.stages[descriptor]
        parts: list[bytes] = []
        if self._unfinished and descriptor in self._unfinished:
            rest, parts = self._unfinished.pop(descriptor)
            data = rest + data
        elif stage != UPGRADE and (payload := self._single(data)) is not None:
            self._message(descriptor, payload)
            return
        if stage == UPGRADE:
            assert self._head_end is not None
            end = self._head_end(data)
            if not end:
                self._unfinished[descriptor] = data, parts
                return
            data = data[end:]
            number = self.numbers[descriptor]
            self._step(descriptor, self.protocol.opened(self.first + number, self.reconnects.identity(number)))
            if self.stages[descriptor] == GONE:
                return
        messages, rest = self._split(data, parts)
        if rest or parts:
            self._unfinished[descriptor] = rest, parts
        for opcode, payload in messages:
            if self.stages[descriptor] == GONE:
                return
            if opcode == frames.PING:
                self._send(descriptor, self.transport.pong(payload))
            elif opcode == frames.PONG:
                self.pings.pong(self.numbers[descriptor])
            elif opcode == frames.CLOSE:
                reply, why = self.transport.closing(payload)
                self._send(descriptor, reply)
                self._drop(descriptor, why)
            else:
                self._message(descriptor, payload)

    def _message(self, descriptor: int, payload: bytes) -> None:
        stage = self.stages[descriptor]
        number = self.numbers[descriptor]
        if stage != READY:
            identity = self.reconnects.identity(number)
            step = self.protocol.answered(self.first + number, stage - FIRST_STEP, payload, identity)
            if step is not None:
                self._step(descriptor, step)
                if step.again and self.stages[descriptor] == READY:
                    self._message(descriptor, payload)
            return
        received = self.protocol.received(self.first + number, payload)
        if received is None:
            return
        updates, reply, strays, pong, _ = received
        if updates:
            now = microseconds()
            for channel, version, data in updates:
                self.seen.update(channel, version, now, data)
        if reply:
            self.replies.append((descriptor, reply))
        self.seen.strays += strays
        if pong:
            self.pings.pong(self.numbers[descriptor])

    def _send(self, descriptor: int, data: bytes) -> None:
        if self.stages[descriptor] == GONE:
            return
        self._send_sealed(descriptor, data if self._tls is None else self._tls.seal(descriptor, data))

    def _send_sealed(self, descriptor: int, data: bytes) -> None:
        try:
            self._outbox.send(descriptor, data)
        except OSError as error:
            self._drop(descriptor, error_name(error))

    def _drop(self, descriptor: int, why: str) -> None:
        stage = self.stages[descriptor]
        if stage == GONE:
            return
        number = self.numbers[descriptor]
        self.stages[descriptor] = GONE
        self.descriptors[number] = NOT_CONNECTED
        self.opening.pop(descriptor, None)
        self._unfinished.pop(descriptor, None)
        self._outbox.forget(descriptor)
        if self._tls is not None:
            self._tls.forget(descriptor)
        os.close(descriptor)
        self.pings.gone(number, why == CUT)
        if stage == READY:
            self.ready -= 1
            self.seen.dropped(self.first + number, microseconds(), why)
            self.reconnects.left(number, time.monotonic())
        else:
            self._failed(number, f"{self._stage_name(stage)}: {why}")

    def _stage_name(self, stage: int) -> str:
        if stage == UPGRADE:
            return self.transport.opening
        steps = self.protocol.steps
        return steps[min(stage - FIRST_STEP, len(steps) - 1)]


def host_of(device: int, hosts: int, failed: int | None) -> int:
    """Which of several hosts a device connects to: in turn, and where it lost its connection one of the others, also
    in turn, another one after each attempt that failed.

    failed: so many attempts to come back; None: it was not away.
    """
    if failed is None or hosts == 1:
        return device % hosts
    return (device + 1 + (device // hosts + failed) % (hosts - 1)) % hosts


def microseconds() -> int:
    """The time of CLOCK_MONOTONIC, in microseconds."""
    return time.monotonic_ns() // 1000
