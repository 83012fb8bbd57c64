"""A load process of devices: up to 18,000 WebSocket clients on one plain epoll loop.

It is started by `bench.runs.load_processes`, with which it talks over a descriptor:

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

Devices that come back (`backoff`) do so by themselves, whichever side ended their connection.
"""

import gc
import random
import select
import socket
import time
from typing import Any, Final

from bench.load.device_sockets import NOT_CONNECTED, READY, DeviceSockets
from bench.load.link import Link, LinkClosedError
from bench.load.reconnect import Backoff

EVENTS: Final = 512
OPEN_AT_ONCE: Final = 256
PROGRESS_SECONDS: Final = 0.2
IDLE_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.1


class VirtualUsers(DeviceSockets):
    """The devices of this process and their loop."""

    def __init__(self, link: Link, order: dict[str, Any]) -> None:
        super().__init__(order)
        self.link = link
        self.more(order["devices"])
        self.going = self.stopped = False
        self._opened = self._base = 0
        self._started = self._rate = 0.0
        self._opening_limit = 0
        self._next_progress = 0.0
        self._progress_sent: dict[str, int] = {}
        self._churn_rate = self._churned_at = 0.0

    # ---- the loop

    def run(self) -> None:
        control = self.link.sock.fileno()
        self.epoll.register(control, select.EPOLLIN)
        self.link.send("up")
        stages = self.stages
        while not self.stopped:
            if self.going:
                self._open_due()
            if self.reconnects.next_due is not None:
                self._open_returns()
            for descriptor, events in self.epoll.poll(self._patience(), EVENTS):
                if descriptor == control:
                    self._commands()
                elif descriptor < len(stages) and stages[descriptor]:
                    self._event(descriptor, events)
            self.send_replies()
            self._look_around()
        self.leave()

    def _patience(self) -> float:
        wait = TICK_SECONDS if self.going or self.opening or self.pings.interval or self._churn_rate else IDLE_SECONDS
        if self.going and self._opened < len(self.descriptors) and len(self.opening) < self._opening_limit:
            wait = min(wait, self._due(self._opened) - time.monotonic())
        if (due := self.reconnects.next_due) is not None:
            wait = min(wait, due - time.monotonic())
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
                self.reconnects.backoff = Backoff(**message.fields)
                self.link.send("noted")
            elif message.kind == "return":
                self._return(**message.fields)
            elif message.kind == "churn":
                self._churn_rate, self._churned_at = message.fields["rate"], time.monotonic()
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
        self.expire(now)
        self.pings.expire(now)
        if self.pings.interval:
            self._ping_due(now)
        if self._churn_rate:
            self._churn_due(now)
        if self.going and self._opened == len(self.descriptors) and not self._setting_up():
            self._report_ready()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_SECONDS
            if (counts := self._counts()) != self._progress_sent:
                self._send_progress(counts)

    def _counts(self) -> dict[str, int]:
        pings = self.pings
        return {
            "ready": self.ready,
            "failed": self.set_ups.failed,
            "arrived": self.seen.arrived,
            "away": len(self.reconnects.away),
            "back": self.seen.back,
            "pings_sent": pings.sent,
            "pings_answered": pings.answered,
            "pings_overdue": pings.overdue,
        }

    def _send_progress(self, counts: dict[str, int]) -> None:
        self._progress_sent = counts
        self.link.send("progress", **counts)

    # ---- setting up

    def _go(self, rate: float, opening: int) -> None:
        """Connect the devices that never were, `rate` a second if not 0, `opening` at once at most."""
        self.going, self._started = True, time.monotonic()
        self._base, self._rate, self._opening_limit = self._opened, rate, opening

    def _due(self, number: int) -> float:
        return self._started + (number - self._base) / self._rate if self._rate else self._started

    def _open_due(self) -> None:
        now = time.monotonic()
        wanted = len(self.descriptors)
        while self._opened < wanted and len(self.opening) < self._opening_limit and self._due(self._opened) <= now:
            number = self._opened
            self._opened += 1
            self._open(number, self._due(number) if self._rate else time.monotonic())

    def _open_returns(self) -> None:
        now = time.monotonic()
        for number in self.reconnects.due(now, OPEN_AT_ONCE):
            self._open(number, now)

    def _setting_up(self) -> bool:
        """Whether devices are under way for the first time."""
        return any(self.numbers[descriptor] not in self.reconnects.away for descriptor in self.opening)

    # ---- leaving, coming back, pings

    def _cut_all(self) -> None:
        for number in range(len(self.descriptors)):
            self.cut(number)
        self.link.send("cut")

    def _return(self, devices: list[int], seconds: float, backoff: dict[str, Any]) -> None:
        """Of the devices that are away these come back, evenly over the time, and the others don't."""
        numbers = (device - self.first for device in devices)
        self.reconnects.only(numbers, time.monotonic(), seconds / max(1, len(devices)), Backoff(**backoff))
        self.link.send("returning")

    def _churn_due(self, now: float) -> None:
        due = int((now - self._churned_at) * self._churn_rate)
        self._churned_at += due / self._churn_rate
        for _ in range(min(due, self.ready)):
            self.cut(int(random.random() * self._opened))

    def _ping_due(self, now: float) -> None:
        for number in self.pings.turns(self._opened, now):
            if (descriptor := self.connected(number)) is not None:
                self.pings.ping(number, now)
                self._send(descriptor, self.protocol.ping)

    # ---- reports

    def _report_ready(self) -> None:
        if self.going:
            self.going = False
            up = sum(
                descriptor != NOT_CONNECTED and self.stages[descriptor] == READY
                for descriptor in self.descriptors[self._base : self._opened]
            )
            self.set_ups.report(self.link, up)

    def _report_seen(self) -> None:
        self.seen.report(self.link, self.ready, self.pings.since_last())


def main(descriptor: int) -> None:
    gc.disable()  # nothing here is cyclic, and a collection would show as latency of the farm
    link = Link(socket.socket(fileno=descriptor))
    try:
        VirtualUsers(link, link.wait().fields).run()
    except LinkClosedError:
        return
