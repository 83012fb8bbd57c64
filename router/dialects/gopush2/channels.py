"""gopush2, at the owner of a channel: what becomes of its messages and tokens, and which devices may subscribe.

A push is answered once it is durable.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from router.common import messages as m
from router.common.numbers import ROUTER_BITS
from router.common.operation import Operation
from router.common.position import AfterOffset
from router.core.operations import Done, Perform
from router.dialects.app_server import Context
from router.dialects.gopush2.protocol import (
    CHANNELS,
    ENTERED,
    EXPIRED,
    NO_CHANNEL_HERE,
    NOT_ADDED,
    NOT_THERE,
    OFTEN,
    TOKEN_REFUSED,
    TOKENS,
    Count,
    Enter,
    Entry,
    Gopush2Options,
    Look,
    Open,
    Present,
    Push,
    deadline_of,
    deadline_value,
    token_address,
)
from router.dialects.gopush2.stat import Counts
from router.store.base import Append
from router.store.changes import CHANGED, Changed, Put, PutIfAbsent, Take

_TOKEN: Final = b"\1"


class Channels:
    """Performs the operations of the channels that this router owns. counts: what it has done."""

    def __init__(self, context: Context, options: Gopush2Options, counts: Counts) -> None:
        self._options = options
        self._messages = context.core.messages
        self._records = context.core.records
        self._logs = context.core.logs
        self._channels = context.core.channels
        self._unix_time = context.unix_time
        self._counts = counts
        self._of_endpoint = context.limits.endpoint

    def performers(self) -> dict[type[Operation], Perform]:
        """By operation."""
        push = self._push if self._of_endpoint is None else self._push_limited
        return {
            Enter: self._enter,
            Look: self._look,
            Push: push,
            Open: self._open,
            Count: self._count,
            Present: self._present,
        }

    # ------------------------------------------------------------------ for app servers

    def _push_limited(self, channel: bytes, push: Push, done: Done) -> None:
        assert self._of_endpoint is not None
        if self._of_endpoint(channel):
            done(OFTEN)
        else:
            self._push(channel, push, done)

    def _push(self, channel: bytes, push: Push, done: Done) -> None:
        if self._messages.full:
            self._messages.refuse()
            done(m.FULL)
            return

        def known(status: int, record: bytes | None) -> None:
            if status != m.OK:
                done(m.FAILED)
            elif self._left(channel, record):
                self._append(channel, push, done)
            else:
                done(NOT_THERE)

        self._records.look_up(CHANNELS, channel, known)

    def _append(self, channel: bytes, push: Push, done: Done) -> None:
        self._counts.added_message += 1
        if push.seconds <= 0:
            self._counts.expired_message += 1
            done(m.FAILED)
            return
        sequence = self._messages.sequence()
        event = Append(
            channel,
            sequence,
            int(self._unix_time()) + push.seconds,
            push.body,
            offset=push.mid or sequence >> ROUTER_BITS,  # the time in microseconds, or above it
            exact=push.mid > 0,
            most=self._options.max_stored_message,
        )

        def logged(status: int, end: AfterOffset | None) -> None:
            done(m.OK if status == m.OK and end is not None else m.FAILED)

        self._messages.publish_logged(event, logged)

    def _open(self, channel: bytes, asked: Open, done: Done) -> None:
        if self._messages.full:
            done(m.FULL)
            return
        deadline = int(self._unix_time()) + self._options.channel_expire
        extended = False

        def created(status: int, changed: Changed | None) -> None:
            if changed is not None:
                self._counts.created += changed.outcome == CHANGED
                self._counts.refreshed += changed.outcome != CHANGED

        def was_extended(status: int, changed: Changed | None) -> None:
            nonlocal extended
            extended = status == m.OK

        def added(status: int, changed: Changed | None) -> None:
            added = status == m.OK and changed is not None and changed.outcome == CHANGED
            done(m.OK if extended and added else NOT_ADDED)

        # In this order, and as a rule in one commit: when the last is known, so are the others.
        value = deadline_value(deadline)
        self._records.change(CHANNELS, channel, PutIfAbsent(value, deadline), created)
        self._records.change(CHANNELS, channel, Put(value, deadline), was_extended)
        self._logs.expire(channel, deadline)
        self._records.change(TOKENS, token_address(channel, asked.token), PutIfAbsent(_TOKEN, deadline), added)

    def _count(self, key: bytes, asked: Count, done: Done) -> None:
        done(m.OK, asdict(self._counts))

    def _present(self, key: bytes, asked: Present, done: Done) -> None:
        there = self._channels.get(key)
        done(m.OK, 0 if there is None else there.count)

    # ------------------------------------------------------------------ for devices

    def _look(self, channel: bytes, look: Look, done: Done) -> None:
        """May a device stay?"""

        def known(status: int, record: bytes | None) -> None:
            if status != m.OK:
                done(status)
                return
            left = self._left(channel, record)
            done(m.OK, Entry(ENTERED, left) if left else Entry(NO_CHANNEL_HERE))

        self._records.read(CHANNELS, channel, known)

    def _enter(self, channel: bytes, enter: Enter, done: Done) -> None:
        """May a device come in?"""

        def known(status: int, record: bytes | None) -> None:
            if status != m.OK:
                done(status)
                return
            left = self._left(channel, record)
            if left and not self._options.auth:
                done(m.OK, Entry(ENTERED, left))
            elif left:
                self._take(channel, enter, left, done)
            elif self._options.auth:
                done(m.OK, Entry(NO_CHANNEL_HERE))
            else:
                self._create(channel, done)

        self._records.read(CHANNELS, channel, known)

    def _take(self, channel: bytes, enter: Enter, left: int, done: Done) -> None:
        def taken(status: int, changed: Changed | None) -> None:
            if status != m.OK:
                done(status)
            else:
                good = changed is not None and changed.outcome == CHANGED
                done(m.OK, Entry(ENTERED, left) if good else Entry(TOKEN_REFUSED))

        token = token_address(channel, enter.token)
        self._records.change(TOKENS, token, Take(enter.taker), taken, own=True)

    def _create(self, channel: bytes, done: Done) -> None:
        """Without `auth` the first device creates the channel, which nothing extends."""
        if self._messages.over:
            done(m.FAILED)
            return
        seconds = self._options.channel_expire
        deadline = int(self._unix_time()) + seconds

        def created(status: int, changed: Changed | None) -> None:
            if status != m.OK:
                done(status)
                return
            self._counts.created += changed is not None and changed.outcome == CHANGED
            done(m.OK, Entry(ENTERED, seconds))

        self._logs.expire(channel, deadline)
        self._records.change(CHANNELS, channel, PutIfAbsent(deadline_value(deadline), deadline), created, own=True)

    def _left(self, channel: bytes, record: bytes | None) -> int:
        """For how many seconds the channel is there yet; 0: it is not. Devices of one that has expired are closed."""
        left = 0 if record is None else deadline_of(record) - int(self._unix_time())
        if left <= 0:
            self._messages.terminate(channel, int(EXPIRED), EXPIRED.text)
            return 0
        return left
