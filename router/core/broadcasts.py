"""Broadcasts: small texts by key of which every worker keeps a copy. Pure.

All of them are one record of the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from router.common import logs
from router.common import messages as m
from router.common.partitions import BROADCASTS
from router.core.committer import GroupCommitter

SPACE: Final = "notice"  # as it is in stores that exist
"""Space of the one record that holds them."""
KEY: Final = BROADCASTS
"""Its key."""

Answer = Callable[[int, dict[str, str]], None]
"""Called once with OK, FULL or FAILED and the broadcasts of the space that was asked about."""
_Spaces = dict[str, dict[str, str]]
_Ask = tuple[str, str, str | None, Answer]  # space, key, value

_in = msgspec.json.Decoder(_Spaces)
_out = msgspec.json.Encoder(order="sorted")


class Broadcasts:
    """All of them. `send_all` sends a message to every worker. `most` of them there may be, in all spaces;
    `most_changes` may wait for their turn, more are answered with FAILED."""

    def __init__(
        self, committer: GroupCommitter, most: int, most_changes: int, send_all: Callable[[m.ToWorker], None]
    ) -> None:
        self._committer = committer
        self._most = most
        self._most_changes = most_changes
        self._send_all = send_all
        self._broadcasts: _Spaces | None = None  # None: not read yet
        self._failed = False
        self._asks: deque[_Ask] = deque()

    def load(self) -> None:
        """Read them; until they are known none can be set. To be called once; a failure is tried again by `tick`."""
        self._committer.read_record(SPACE, KEY, self._loaded)

    def _loaded(self, status: int, value: bytes | None) -> None:
        if status != m.OK:
            self._failed = True
            return
        broadcasts: _Spaces = {}
        if value is not None:
            try:
                broadcasts = _in.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                logs.error("broadcasts.not_understood", error=str(error))
        self._broadcasts = broadcasts
        for message in self.messages():
            self._send_all(message)

    def tick(self) -> None:
        """To be called a few times a second."""
        if self._failed:
            self._failed = False
            self.load()

    def messages(self) -> Iterator[m.ToWorker]:
        """What is sent to a worker that has joined: nothing while they are not known, all of them later."""
        if self._broadcasts is None:
            return
        for space, broadcasts in self._broadcasts.items():
            for key, value in broadcasts.items():
                yield m.Broadcast(space, key, value)
        yield m.BroadcastsSent()

    def set(self, space: str, key: str, value: str | None, answer: Answer) -> None:
        """Set a broadcast, or remove it; it is sent and answered when that is durable. With "" as key, only read."""
        if not key:
            self._answer(space, m.FAILED if self._broadcasts is None else m.OK, answer)
        elif len(self._asks) >= self._most_changes:
            self._answer(space, m.FAILED, answer)
        else:
            self._asks.append((space, key, value, answer))
            if len(self._asks) == 1:
                self._next()

    def _next(self) -> None:
        """They are one record, so they are set one after the other."""
        asks = self._asks
        while asks:
            space, key, value, answer = asks[0]
            changed = self._with(space, key, value)
            if changed is None or changed is self._broadcasts:
                asks.popleft()
                status = m.FAILED if self._broadcasts is None else m.FULL if changed is None else m.OK
                self._answer(space, status, answer)
                continue
            self._committer.record(SPACE, KEY, _out.encode(changed), 0)
            self._committer.when_durable(partial(self._written, changed))
            return

    def _with(self, space: str, key: str, value: str | None) -> _Spaces | None:
        """The broadcasts with this one: themselves if it changes nothing, None if that cannot be."""
        broadcasts = self._broadcasts
        if broadcasts is None:
            return None
        before = broadcasts.get(space, {})
        if before.get(key) == value:
            return broadcasts
        changed = {name: there for name, there in broadcasts.items() if name != space}
        if value is None:
            inside = {name: text for name, text in before.items() if name != key}
        elif max(len(space), len(key)) > m.MAX_BROADCAST_KEY or len(value) > m.MAX_BROADCAST_VALUE:
            return None
        else:
            inside = before | {key: value}
        if inside:
            changed[space] = inside
        more = len(inside) > len(before)
        return None if more and sum(map(len, changed.values())) > self._most else changed

    def _written(self, changed: _Spaces, status: int) -> None:
        space, key, value, answer = self._asks.popleft()
        if status == m.OK:
            self._broadcasts = changed
            self._send_all(m.Broadcast(space, key, value))
        self._answer(space, status, answer)
        self._next()

    def _answer(self, space: str, status: int, answer: Answer) -> None:
        answer(status, (self._broadcasts or {}).get(space, {}))
