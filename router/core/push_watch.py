"""Pushes that are followed on their way: what is told of each, and to whom. Pure.

This takes the place of `Messages` where somebody wants to know (`log.pushes`, `trace.*`); else none of it is there.
Each push is told of when it `begins`; once when it is durable, or was sent without being kept (`accepted`), or was
`refused`; and once when its worker has written it to the socket of its device (`delivered`), or will not, or there is
none (`undelivered`). For that, the worker is asked to report of pushes too whose answer does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from router.common import messages as m
from router.core.facades import LookUp
from router.core.publishing import Messages
from router.core.pushes import REFUSED_FAILED, REFUSED_FULL, REFUSED_OVER, Push, PushDone, Pushes
from router.core.scope import Origin, Scope

REASONS: Final = {REFUSED_FULL: "inbox full", REFUSED_OVER: "store full", REFUSED_FAILED: "store failed or busy"}
"""Why a push is refused, by its outcome."""


Acknowledged = Callable[[bytes, Iterable[tuple[str, int]]], bool]


class PushWatch(Protocol):
    """Who wants to know. Must not raise."""

    def begins(self, push: Watched) -> None:
        """It is asked for."""

    def accepted(self, push: Watched) -> None:
        """It is durable; or it has a TTL of 0 and has been sent, if there is a device."""

    def refused(self, push: Watched, why: str) -> None:
        """It is answered with an error, and not promised to be kept."""

    def delivered(self, push: Watched) -> None:
        """A worker has written it to the socket of its device."""

    def undelivered(self, push: Watched) -> None:
        """No worker has written it: there was none, or it did not report in time."""

    def acked(self, device: bytes, updates: Iterable[tuple[str, int]]) -> None:
        """A device has acknowledged these slots up to these versions."""

    def gone(self, why: str, device: bytes, slot: str, version: int) -> None:
        """A stored one has `expired`, or was `evicted` for others. Comes from the store's thread."""


class Watched:
    """A push that is followed: it is called with its outcome, in place of who asked for it."""

    __slots__ = (
        "device",
        "done",
        "origin",
        "report",
        "resulted",
        "settled",
        "size",
        "slot",
        "spans",
        "ttl",
        "version",
        "watch",
    )

    def __init__(
        self,
        watch: PushWatch,
        origin: Origin | None,
        device: bytes,
        slot: str,
        version: int,
        ttl: int,
        size: int,
        done: PushDone,
        report: bool,
    ) -> None:
        """ttl: in s. size: characters of its body. report: whether its worker is to report although no answer waits."""
        self.watch = watch
        self.origin = origin
        self.device = device
        self.slot = slot
        self.version = version
        self.ttl = ttl
        self.size = size
        self.done = done
        self.report = report
        self.settled = False  # it was told that it is accepted, or refused
        self.resulted = False  # it was told that it is delivered, or not
        self.spans: Any = None
        """Of its trace."""

    def __call__(self, outcome: int) -> None:
        """What is to be answered is known."""
        if not self.settled:
            self.settled = True
            if (why := REASONS.get(outcome)) is not None:
                self.watch.refused(self, why)
            else:
                self.watch.accepted(self)
        self.done(outcome)

    def sent(self, written: bool) -> None:
        """It is known whether a worker has written it."""
        if not self.resulted:
            self.resulted = True
            (self.watch.delivered if written else self.watch.undelivered)(self)

    def durable(self) -> None:
        """The store has kept it."""
        if not self.settled:
            self.settled = True
            self.watch.accepted(self)


class WatchedPush(Push):
    """A `Push` whose `done` is a `Watched`."""

    __slots__ = ()

    def __init__(
        self, pushes: Pushes, number: int, slot: str, version: int, body: str | None, done: PushDone, since: float
    ) -> None:
        super().__init__(pushes, number, slot, version, body, done, since)
        assert isinstance(done, Watched)
        if done.report:
            self.number = pushes.number()
            pushes.wait(self, pushes.monotonic())

    def committed(self, status: int) -> None:
        """As `Push.committed`."""
        if status == m.OK and isinstance(self.done, Watched):
            self.done.durable()
        super().committed(status)

    def resulted(self, outcome: int) -> None:
        """As `Push.resulted`."""
        if isinstance(self.done, Watched):
            self.done.sent(outcome == m.WRITTEN)
        super().resulted(outcome)


class WatchedMessages(Messages):
    """Messages on their way in, of which somebody wants to know."""

    __slots__ = ("scope", "watch")
    PUSH = WatchedPush

    def __init__(self, watch: PushWatch, scope: Scope, *parts: Any) -> None:
        super().__init__(*parts)
        self.watch = watch
        self.scope = scope

    def push(
        self,
        device: bytes,
        slot: str,
        version: int,
        done: PushDone,
        *,
        ttl: int,
        body: str | None = None,
        wait: bool = True,
        **more: Any,
    ) -> None:
        """As `Messages.push`."""
        sent = self._addresses.device(device) is not None and not self._pushes.full
        origin, size = self.scope.origin, len(body or "")
        watched = Watched(self.watch, origin, device, slot, version, ttl, size, done, sent and not wait)
        self.watch.begins(watched)
        super().push(device, slot, version, watched, ttl=ttl, body=body, wait=wait, **more)
        if not sent:
            watched.sent(False)

    def acknowledging(self, acknowledged: Acknowledged) -> Acknowledged:
        """The committer's function of this name, which tells the watch too."""

        def told(device: bytes, updates: Iterable[tuple[str, int]]) -> bool:
            self.watch.acked(device, updates)
            return acknowledged(device, updates)

        return told

    def looking_up(self, look_up: LookUp) -> LookUp:
        """The function of `Records` of this name, whose callback is for the request that has called it."""
        return lambda space, key, done: look_up(space, key, self.scope.kept(done))
