"""What app servers send, and devices publish: to devices (`push`, `withdraw`) and to channels (`publish`, `terminate`).

A push is answered once two things are known: whether it is durable (the committer's callback) and whether a worker
wrote it to the device's socket (RESULT, or no worker holds the device, or the worker did not report in time).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from router.common import messages as m
from router.common.item import Item
from router.common.metrics import RouterCounters
from router.common.numbers import SECOND, Sequencer
from router.common.position import ANY_EPOCH, AfterOffset, LogEvent
from router.core.address_map import AddressMap
from router.core.attachments import Attachments
from router.core.committer import GroupCommitter
from router.core.pushes import REFUSED_FAILED, REFUSED_OVER, STORED, Push, PushDone, Pushes
from router.core.sessions import Sessions
from router.core.settling import Settling
from router.store.base import ANY_VERSION, Append, check_event


class Messages:
    """Messages on their way in. `sequence` and `version` give numbers for the next push (`router.common.numbers`)."""

    __slots__ = (
        "_addresses",
        "_attachments",
        "_committer",
        "_counters",
        "_monotonic",
        "_pushes",
        "_sessions",
        "_settling",
        "_unix_time",
        "sequence",
        "version",
    )
    PUSH: ClassVar = Push
    """What a push in work is."""

    def __init__(
        self,
        committer: GroupCommitter,
        addresses: AddressMap,
        sessions: Sessions,
        attachments: Attachments,
        pushes: Pushes,
        numbers: Sequencer,
        settling: Settling,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self._committer = committer
        self._addresses = addresses
        self._sessions = sessions
        self._attachments = attachments
        self._pushes = pushes
        self._counters: RouterCounters = pushes.counters
        self._settling = settling
        self._monotonic = monotonic
        self._unix_time = unix_time
        self.sequence = numbers.next
        self.version = numbers.version

    # ------------------------------------------------------------------ to devices

    def push(
        self,
        device: bytes,
        slot: str,
        version: int,
        done: PushDone,
        *,
        ttl: int,
        urgency: int = 0,
        body: str | None = None,
        keep_body: bool = True,
        sequence: int = 0,
        wait: bool = True,
    ) -> None:
        """Keep a message in the device's inbox and send it to the device; `done` is called once with the outcome.

        ttl: seconds until it is not worth delivering. keep_body: whether the store keeps the body too, or only the
        live delivery carries it. sequence: its place in the order of arrival, from `sequence()`; 0: the next one.
        wait: whether the outcome waits for the worker too. If not it is STORED as soon as the message is durable,
        and at once for a message with a TTL of 0, which is not stored at all.
        """
        self._counters.pushes += 1
        lease = self._addresses.device(device)
        if not wait and ttl <= 0:
            if lease is None and not self._settling.over:  # nothing would be left of it when the device is announced
                send = partial(self._push_unkept, device, slot, version, body, done)
                self._settling.wait(send, lambda: done(self.refuse()), len(body or ""))
            else:
                self._push_unkept(device, slot, version, body, done)
            return
        if self._committer.full:
            done(self.refuse())
            return
        pushes = self._pushes
        wait = wait and lease is not None and not pushes.full
        expires = int(self._unix_time()) + ttl
        item = Item(slot, version, sequence or self.sequence(), expires, urgency, body if keep_body else None)
        now = self._monotonic()
        push = self.PUSH(pushes, pushes.number() if wait else 0, slot, version, body, done, now)
        self._committer.put(device, item, push.committed)
        if wait:
            pushes.wait(push, now)
        else:
            push.result = m.NOT_HERE  # no result will come
        if lease is not None:
            self._attachments.deliver(lease, device, push)

    def _push_unkept(self, device: bytes, slot: str, version: int, body: str | None, done: PushDone) -> None:
        self._counters.pushes_unkept += 1
        lease = self._addresses.device(device)
        if lease is not None:
            push = self.PUSH(self._pushes, 0, slot, version, body, done, 0.0)
            push.durable = m.OK
            push.result = m.NOT_HERE
            self._attachments.deliver(lease, device, push)
        done(STORED)

    def refuse(self) -> int:
        """Count a push that must not even wait, because the committer is full. Returns: its outcome."""
        self._counters.pushes_refused += 1
        if self._committer.over:
            self._counters.pushes_over += 1
            return REFUSED_OVER
        return REFUSED_FAILED

    def withdraw(
        self, device: bytes, slot: str, version: int = ANY_VERSION, done: Callable[[int], None] | None = None
    ) -> None:
        """Forget what waits in a slot of a device's inbox, if its version is at most this one; whether it was still
        there is not known. done: called with the status when that is durable."""
        self._committer.remove(device, slot, version, push=True)
        if done is not None:
            self._committer.when_durable(done, device)

    # ------------------------------------------------------------------ to channels

    def publish(self, channel: bytes, body: str, exclude: str = "") -> None:
        """Send an event to every subscriber of a channel. exclude: the socket id of a connection that it is not for."""
        self._counters.events += 1
        event = m.Event(channel, body, exclude)
        for lease in self._addresses.channel(channel):
            self._sessions.offer(lease, event, len(body))

    def publish_unlogged(self, event: Append, exclude: str = "") -> None:
        """Send an event with an ID and headers, which no log keeps, to every subscriber of a channel: to dialects as
        one of a log with the offset 0.

        Raises: ValueError for one whose ID or headers no log could hold.
        """
        check_event(event)
        self._counters.events += 1
        self._fan_out(event, ANY_EPOCH, 0, exclude)

    def publish_logged(
        self, event: Append, done: Callable[[int, AfterOffset | None], None] | None = None, exclude: str = ""
    ) -> None:
        """Append an event to the log of its channel and, once that holds it, send it to every subscriber. `done` gets
        status and the position after it; None if it is refused, for the log holds one of its offset.

        Raises: ValueError for an event that no log can hold.
        """
        self._counters.events += 1

        def logged(status: int, end: AfterOffset | None) -> None:
            if status == m.OK and end is not None:
                self._fan_out(event, end.epoch, event.offset if event.exact else end.offset, exclude)
            if done is not None:
                done(status, end)

        self._committer.append(event, logged)

    def _fan_out(self, event: Append, epoch: int, offset: int, exclude: str) -> None:
        time, tag = divmod(event.sequence, SECOND)
        logged = LogEvent(offset, time, tag, event.expires, event.id, event.headers, event.body)
        message = m.LoggedEvent(event.channel, epoch, logged, exclude)
        for lease in self._addresses.channel(event.channel):
            self._sessions.offer(lease, message, len(event.body))

    def terminate(self, channel: bytes, code: int, reason: str) -> None:
        """Have every connection that is subscribed to this address closed, with this close code and reason."""
        for lease in self._addresses.channel(channel):
            self._sessions.offer(lease, m.Terminate(channel, code, reason))

    # ------------------------------------------------------------------ how it stands

    @property
    def full(self) -> bool:
        """Whether what has to be kept is refused now: as much waits as may wait, or as much is stored as may be."""
        return self._committer.full

    @property
    def crowded(self) -> bool:
        """Whether even what needs no room in the store is refused now: as much waits as may wait."""
        return self._committer.crowded

    @property
    def over(self) -> bool:
        """Whether as much is stored as may be. What removes is welcome."""
        return self._committer.over

    @property
    def devices(self) -> int:
        """Devices that are connected now."""
        return self._sessions.devices
