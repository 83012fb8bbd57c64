"""A load process of devices: up to 18,000 WebSocket clients on one plain epoll loop.

It shares the machine with the farm that it measures, so it does what a device does and no more: no task, no
parser and no object per connection. What it is at is a number in an array by its descriptor; all that
it sends and receives is the business of a `bench.load.protocols`. One process is started by `bench.runs.load_processes`
and talks over a descriptor:

    <- begin    what to connect to, how many       -> up
    <- go       connect those that never were      -> progress ..., ready with the samples of their set-ups
    <- halt     connect no more                    -> ready
    <- more     there are so many devices more     -> up
    <- count    report your progress               -> progress
    <- cut      reset all connections at once      -> cut
    <- return   of those away, let only these come -> returning
    <- backoff  from now on come back by this      -> noted
    <- churn    from now on, reset some a second   -> churning
    <- collect                                     -> collected, with every update since the last time
    <- stop     reset all connections and end

Devices that come back (`backoff`) do so by themselves, whoever ended their connection.
"""

import gc
import heapq
import os
import random
import select
import socket
import sys
import time
from array import array
from typing import Any, Final

from bench.load import frames
from bench.load.frames import PeerError
from bench.load.link import Link, LinkClosedError
from bench.load.protocols import protocol_of
from bench.load.protocols.base import DONE, SEED_BYTES, Scenario, Step
from bench.load.sockets import Address, Outbox, error_name, open_connection, reset_on_close, source_of
from bench.load.tally import Pings, Seen, SetUps

READ_BYTES: Final = 4096
EVENTS: Final = 512
OPEN_AT_ONCE: Final = 256
PROGRESS_SECONDS: Final = 0.2
IDLE_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.1
JITTER: Final = 0.5
"""A delay with jitter is this part shorter to this part longer: as long as the one without on average."""

NOT_CONNECTED: Final = -1
IDENTITY_BYTES: Final = 16

GONE: Final = 0
UPGRADE: Final = 1
FIRST_STEP: Final = 2
READY: Final = DONE

CUT: Final = ""


class Backoff:
    """When a device comes back: `first` seconds after its connection ended, twice as long after every attempt that
    failed, `cap` at most."""

    def __init__(self, first: float, cap: float, jitter: bool) -> None:
        self.first = first
        self.cap = cap
        self.jitter = jitter

    def delay(self, failed: int) -> float:
        delay = min(self.cap, self.first * 2.0 ** min(failed, 30))
        return delay * random.uniform(1 - JITTER, 1 + JITTER) if self.jitter else delay


class VirtualUsers:
    """The devices of this process and their loop. Their numbers here begin at 0; `first` is added for the world."""

    def __init__(self, link: Link, order: dict[str, Any]) -> None:
        self.link = link
        self.address = Address(*order["address"])
        self.sources: list[str] = order["sources"]
        self.first: int = order["first"]
        self.timeout: float = order["timeout"]
        self.endpoints_every: int = order["endpoints_every"]
        self.ping_interval: float = order["ping"]
        self.backoff = Backoff(**order["backoff"]) if order["backoff"] else None
        scenario = Scenario(
            order["host"], order["path"], order["channels"], order["payload"], os.urandom(SEED_BYTES), order["shared"]
        )
        self.protocol = protocol_of(order["protocol"], scenario, order["arguments"])
        self.epoll = select.epoll()
        self.outbox = Outbox(self.epoll)

        # a device: its stage and number by its descriptor, its descriptor (and, to come back, its identity) by its
        # number; nothing else while it is silent
        self.stages = array("H")
        self.numbers = array("i")
        self.descriptors = array("i")
        self.identities = bytearray()
        self.unfinished: dict[int, tuple[bytes, list[bytes]]] = {}
        self.opening: dict[int, float] = {}  # when it was due; oldest first: dicts keep their order
        self.replies: list[tuple[int, bytes]] = []
        self.more(order["devices"])

        self.opened = self.base = 0
        self.ready = 0
        self.started = self.rate = 0.0
        self.opening_limit = 0
        self.going = self.stopped = False
        self.next_progress = 0.0
        self.progress_sent: dict[str, int] = {}
        self.set_ups = SetUps()
        self.seen = Seen(judge=bool(order["payload"]))

        self.away: dict[int, int] = {}  # devices to come back, and how many attempts failed
        self.returns: list[tuple[float, int]] = []  # a heap
        self.churn_rate = self.churned_at = 0.0

        self.pings = Pings()
        self.pings_told = self.pings.fields()
        self.pinged_at = time.monotonic()
        self.pointer = 0
        self.awaited: dict[int, float] = {}  # pings without an answer, oldest first

    def more(self, devices: int) -> None:
        """Room for more devices."""
        self.descriptors.extend([NOT_CONNECTED] * devices)
        if self.backoff is not None:
            self.identities.extend(bytes(IDENTITY_BYTES * devices))

    # ---- the loop

    def run(self) -> None:
        control = self.link.sock.fileno()
        self.epoll.register(control, select.EPOLLIN)
        self.link.send("up")
        stages = self.stages
        while not self.stopped:
            if self.going:
                self._open_due()
            if self.returns:
                self._open_returns()
            for descriptor, events in self.epoll.poll(self._patience(), EVENTS):
                if descriptor == control:
                    self._commands()
                elif descriptor < len(stages) and stages[descriptor]:
                    self._event(descriptor, events)
            # after all that was ready is read: an arrival is stamped when it came, not after others' acks
            for descriptor, reply in self.replies:
                self._send(descriptor, reply)
            self.replies.clear()
            self._look_around()
        self._leave()

    def _leave(self) -> None:
        for descriptor in self.descriptors:
            if descriptor != NOT_CONNECTED:
                reset_on_close(descriptor, self.address.family)

    def _patience(self) -> float:
        wait = TICK_SECONDS if self.going or self.opening or self.ping_interval or self.churn_rate else IDLE_SECONDS
        if self.going and self.opened < len(self.descriptors) and len(self.opening) < self.opening_limit:
            wait = min(wait, self._due(self.opened) - time.monotonic())
        if self.returns:
            wait = min(wait, self.returns[0][0] - time.monotonic())
        return max(wait, 0.0)

    def _commands(self) -> None:
        for message in self.link.read():
            if message.kind == "go":
                self._go(**message.fields)
            elif message.kind == "halt":
                self._report_ready()
            elif message.kind == "more":
                self.more(message.fields["devices"])
                self.link.send("up")
            elif message.kind == "count":
                self._send_progress(self._counts())
            elif message.kind == "cut":
                self._cut_all()
            elif message.kind == "backoff":
                self.backoff = Backoff(**message.fields)
                self.link.send("noted")
            elif message.kind == "return":
                self._return(**message.fields)
            elif message.kind == "churn":
                self.churn_rate, self.churned_at = message.fields["rate"], time.monotonic()
                self.link.send("churning")
            elif message.kind == "collect":
                self._report_seen()
            elif message.kind == "stop":
                self.stopped = True
            else:
                self._command(message.kind)

    def _command(self, kind: str) -> None:
        """A message that only some load processes of devices know."""

    def _look_around(self) -> None:
        now = time.monotonic()
        while self.opening:
            descriptor, due = next(iter(self.opening.items()))
            if now - due < self.timeout:
                break
            self._drop(descriptor, "no answer in time")
        while self.awaited:
            number, sent = next(iter(self.awaited.items()))
            if now - sent < self.timeout:
                break
            del self.awaited[number]
            self.pings.overdue += 1
        if self.ping_interval:
            self._ping_due(now)
        if self.churn_rate:
            self._churn_due(now)
        if self.going and self.opened == len(self.descriptors) and not self._setting_up():
            self._report_ready()
        if now >= self.next_progress:
            self.next_progress = now + PROGRESS_SECONDS
            if (counts := self._counts()) != self.progress_sent:
                self._send_progress(counts)

    def _counts(self) -> dict[str, int]:
        pings = self.pings
        return {
            "ready": self.ready,
            "failed": self.set_ups.failed,
            "arrived": self.seen.arrived,
            "away": len(self.away),
            "back": self.seen.back,
            "pings_sent": pings.sent,
            "pings_answered": pings.answered,
            "pings_overdue": pings.overdue,
        }

    def _send_progress(self, counts: dict[str, int]) -> None:
        self.progress_sent = counts
        self.link.send("progress", **counts)

    # ---- setting up

    def _go(self, rate: float, opening: int) -> None:
        """Connect the devices that never were, `rate` a second if not 0, `opening` at once at most."""
        self.going, self.started = True, time.monotonic()
        self.base, self.rate, self.opening_limit = self.opened, rate, opening

    def _due(self, number: int) -> float:
        return self.started + (number - self.base) / self.rate if self.rate else self.started

    def _open_due(self) -> None:
        now = time.monotonic()
        wanted = len(self.descriptors)
        while self.opened < wanted and len(self.opening) < self.opening_limit and self._due(self.opened) <= now:
            number = self.opened
            self.opened += 1
            self._open(number, self._due(number) if self.rate else time.monotonic())

    def _open(self, number: int, due: float) -> None:
        index = self.first + number
        try:
            descriptor = open_connection(self.address, source_of(index, self.address, self.sources))
        except OSError as error:
            self._failed(number, f"connect: {error_name(error)}")
            return
        if descriptor >= len(self.stages):
            more = descriptor + 1 - len(self.stages)
            self.stages.extend([GONE] * more)
            self.numbers.extend([0] * more)
        self.stages[descriptor] = UPGRADE
        self.numbers[descriptor] = number
        self.descriptors[number] = descriptor
        self.opening[descriptor] = due
        self.epoll.register(descriptor, select.EPOLLIN)
        self._send(descriptor, self.protocol.request(index))

    def _setting_up(self) -> bool:
        """Whether devices are under way for the first time."""
        return any(self.numbers[descriptor] not in self.away for descriptor in self.opening)

    def _step(self, descriptor: int, step: Step) -> None:
        """Take a step of the set-up."""
        number = self.numbers[descriptor]
        index = self.first + number
        if step.identity and self.backoff is not None:
            known = self._identity(number)
            self.seen.reassigned += bool(known) and known != step.identity
            self.identities[number * IDENTITY_BYTES : (number + 1) * IDENTITY_BYTES] = step.identity
        if step.endpoint and self.endpoints_every and index % self.endpoints_every == 0 and number not in self.away:
            self.set_ups.endpoint(step.channel, step.endpoint)
        if step.step == DONE:
            self._set_up(descriptor, number)
        else:
            self.stages[descriptor] = FIRST_STEP + step.step
        if step.send:
            self._send(descriptor, step.send)

    def _identity(self, number: int) -> bytes:
        """What a device has to say when it comes back; empty if it was never set up."""
        identity = bytes(self.identities[number * IDENTITY_BYTES : (number + 1) * IDENTITY_BYTES])
        return identity if any(identity) else b""

    def _set_up(self, descriptor: int, number: int) -> None:
        due = self.opening.pop(descriptor)
        self.stages[descriptor] = READY
        self.ready += 1
        if (failed := self.away.pop(number, None)) is None:
            self.set_ups.done(due, time.monotonic())
        else:
            self.seen.returned(self.first + number, _now(), failed + 1)

    def _report_ready(self) -> None:
        if self.going:
            self.going = False
            up = sum(
                descriptor != NOT_CONNECTED and self.stages[descriptor] == READY
                for descriptor in self.descriptors[self.base : self.opened]
            )
            self.set_ups.report(self.link, up)

    def _report_seen(self) -> None:
        pings = self.pings.fields()
        since = {name: count - self.pings_told[name] for name, count in pings.items()}
        self.pings_told = pings
        self.seen.report(self.link, self.ready, since | {"outstanding": len(self.awaited)})

    # ---- leaving and coming back

    def _cut_all(self) -> None:
        for descriptor in self.descriptors:
            if descriptor != NOT_CONNECTED and self.stages[descriptor] == READY:
                reset_on_close(descriptor, self.address.family)
                self._drop(descriptor, CUT)
        self.link.send("cut")

    def _return(self, devices: list[int], seconds: float, backoff: dict[str, Any]) -> None:
        """Of the devices that are away these come back, evenly over the time, and the others don't."""
        self.backoff = Backoff(**backoff)
        now, step = time.monotonic(), seconds / max(1, len(devices))
        mine = (device - self.first for device in devices)
        self.returns = [(now + index * step, number) for index, number in enumerate(mine) if number in self.away]
        self.link.send("returning")

    def _churn_due(self, now: float) -> None:
        due = int((now - self.churned_at) * self.churn_rate)
        self.churned_at += due / self.churn_rate
        for _ in range(min(due, self.ready)):
            number = int(random.random() * self.opened)
            descriptor = self.descriptors[number]
            if descriptor != NOT_CONNECTED and self.stages[descriptor] == READY:
                reset_on_close(descriptor, self.address.family)
                self._drop(descriptor, CUT)

    def _open_returns(self) -> None:
        now = time.monotonic()
        for _ in range(OPEN_AT_ONCE):
            if not self.returns or self.returns[0][0] > now:
                break
            self._open(heapq.heappop(self.returns)[1], now)

    def _failed(self, number: int, kind: str) -> None:
        """A set-up, or an attempt to come back, failed."""
        if number not in self.away:
            self.set_ups.failure(kind)
            return
        self.seen.return_failure(kind)
        self.away[number] += 1
        self._come_back_later(number)

    def _come_back_later(self, number: int) -> None:
        assert self.backoff is not None
        heapq.heappush(self.returns, (time.monotonic() + self.backoff.delay(self.away[number]), number))

    # ---- pings

    def _ping_due(self, now: float) -> None:
        """Each device has its turn once an interval, one after the other: no device needs a timer."""
        if not self.opened:
            self.pinged_at = now
            return
        step = self.ping_interval / self.opened
        due = int((now - self.pinged_at) / step)
        self.pinged_at += due * step
        for _ in range(min(due, self.opened)):
            self.pointer = self.pointer + 1 if self.pointer + 1 < self.opened else 0
            descriptor = self.descriptors[self.pointer]
            if descriptor == NOT_CONNECTED or self.stages[descriptor] != READY or self.pointer in self.awaited:
                continue
            self.pings.sent += 1
            self.awaited[self.pointer] = now
            self._send(descriptor, self.protocol.ping)

    def _pong(self, descriptor: int) -> None:
        if self.awaited and self.awaited.pop(self.numbers[descriptor], None) is not None:
            self.pings.answered += 1

    # ---- reading and writing

    def _event(self, descriptor: int, events: int) -> None:
        if events & select.EPOLLOUT:
            try:
                self.outbox.flush(descriptor)
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
            self._drop(descriptor, "closed without a close frame")
            return
        try:
            self._received(descriptor, data)
        except PeerError as error:
            self._drop(descriptor, str(error))

    def _received(self, descriptor: int, data: bytes) -> None:
        stage = self.stages[descriptor]
        parts: list[bytes] = []
        if self.unfinished and descriptor in self.unfinished:
            rest, parts = self.unfinished.pop(descriptor)
            data = rest + data
        elif stage != UPGRADE and (payload := frames.single_text(data)) is not None:
            self._message(descriptor, payload)
            return
        if stage == UPGRADE:
            end = frames.upgrade_end(data)
            if not end:
                self.unfinished[descriptor] = data, parts
                return
            data = data[end:]
            number = self.numbers[descriptor]
            identity = self._identity(number) if self.away and number in self.away else b""
            self._step(descriptor, self.protocol.opened(self.first + number, identity))
            if self.stages[descriptor] == GONE:
                return
        messages, rest = frames.split_frames(data, parts)
        if rest or parts:
            self.unfinished[descriptor] = rest, parts
        for opcode, payload in messages:
            if self.stages[descriptor] == GONE:
                return
            if opcode == frames.PING:
                self._send(descriptor, frames.client_frame(payload, frames.PONG))
            elif opcode == frames.PONG:
                self._pong(descriptor)
            elif opcode == frames.CLOSE:
                self._send(descriptor, frames.client_frame(payload[:2], frames.CLOSE))
                self._drop(descriptor, f"closed with {int.from_bytes(payload[:2], 'big') or 1005}")
            else:
                self._message(descriptor, payload)

    def _message(self, descriptor: int, payload: bytes) -> None:
        stage = self.stages[descriptor]
        number = self.numbers[descriptor]
        if stage != READY:
            identity = self._identity(number) if self.away and number in self.away else b""
            step = self.protocol.answered(self.first + number, stage - FIRST_STEP, payload, identity)
            if step is not None:
                self._step(descriptor, step)
            return
        received = self.protocol.received(self.first + number, payload)
        if received is None:
            return
        updates, reply, strays, pong = received
        if updates:
            now = _now()
            for channel, version, data in updates:
                self.seen.update(channel, version, now, data)
        if reply:
            self.replies.append((descriptor, reply))
        self.seen.strays += strays
        if pong:
            self._pong(descriptor)

    def _send(self, descriptor: int, data: bytes) -> None:
        if self.stages[descriptor] == GONE:
            return
        try:
            self.outbox.send(descriptor, data)
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
        self.unfinished.pop(descriptor, None)
        self.outbox.forget(descriptor)
        os.close(descriptor)
        if self.awaited and self.awaited.pop(number, None) is not None:
            if why == CUT:
                self.pings.cut += 1
            else:
                self.pings.overdue += 1
        if stage == READY:
            self.ready -= 1
            self.seen.dropped(self.first + number, _now(), why)
            if self.backoff is not None:
                self.away[number] = 0
                self._come_back_later(number)
        else:
            self._failed(number, f"{self._stage_name(stage)}: {why}")

    def _stage_name(self, stage: int) -> str:
        if stage == UPGRADE:
            return "upgrade"
        steps = self.protocol.steps
        return steps[min(stage - FIRST_STEP, len(steps) - 1)]


def _now() -> int:
    return time.monotonic_ns() // 1000


def main(descriptor: int) -> None:
    gc.disable()  # nothing here is cyclic, and a collection would show as latency of the farm
    link = Link(socket.socket(fileno=descriptor))
    try:
        VirtualUsers(link, link.wait().fields).run()
    except LinkClosedError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
