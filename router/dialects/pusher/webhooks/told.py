"""What webhooks were told and its opposite not yet: which channels are occupied, and which users are members. Pure.

It is kept in the store, so that the next life of a router can compare it with what is there: what ended while the
router was away, or ended with it, is told then. As long as an event is on its way to another router, which keeps it,
it is in doubt whether webhooks know: then what is there is told again by the next life.

There is a record for each partition, with what belongs to its channels: it moves with them. It is written with the
event that makes it differ; if it is long, a few times a second. Then a crash may cost the opposite of what was told
just before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from router.common import logs
from router.common import messages as m
from router.common.partitions import PARTITIONS, key_in, partition
from router.core.facades import Records
from router.dialects.pusher.protocol import channel_address
from router.store.changes import UNCHANGED, Changed, PutIfAbsent

SPACE: Final = "pusher.told"
_LABEL: Final = b"told"
_BEGUN: Final = b"told.begun"
_LONG: Final = 50
"""Entries of a record from which on it is not written with each of them."""
_ENTRIES_A_TICK: Final = 5000
"""So many are written in one tick, in the mean: about 2 MB a second where very many come and go all the time."""

Entry = tuple[str, str, str | None]
"""Application and channel; and a user, or None for the channel itself."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(list[tuple[str, str, str | None, bool]])


def nothing() -> None:
    """Nobody waits for it."""


class Told:
    """Of the channels that this router owns. owns: whether a key is this router's."""

    def __init__(self, records: Records, owns: Callable[[bytes], bool]) -> None:
        self._records = records
        self._partitions = [number for number in range(PARTITIONS) if owns(key_in(number, _LABEL))]
        self._entries: dict[int, dict[Entry, int]] = {}  # 0, or the number of the event by which it is in doubt
        self._number = 0
        self._late: dict[int, None] = {}  # partitions whose records are to be written, in order
        self._may_write = _ENTRIES_A_TICK  # entries, now
        self._unread = 0
        self.begun = False
        """Whether an earlier life has kept here what it told."""

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries.get(_partition(entry), ())

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entries in self._entries.values() for entry in entries)

    def in_doubt(self, entry: Entry) -> bool:
        """Whether it is not known if webhooks know of it."""
        return bool(self._entries.get(_partition(entry), {}).get(entry, 0))

    @property
    def read(self) -> bool:
        """Whether the store has given what it has."""
        return not self._unread

    def add(self, entry: Entry) -> None:
        """Webhooks know of this."""
        self._set(entry, 0)

    def forget(self, entry: Entry) -> None:
        """Nobody wants to know of it any more."""
        self._remove(entry)

    def tell(self, entry: Entry, doubtful: bool) -> Callable[[], None]:
        """It is told now. doubtful: whether the event goes to where this commit does not keep it. Returns: what is to
        be called when it is kept."""
        if not doubtful:
            self._set(entry, 0, True)
            return nothing
        return self._doubt(entry, self.add)

    def tell_opposite(self, entry: Entry, doubtful: bool) -> Callable[[], None]:
        """The same for its opposite."""
        if not doubtful and entry in self:
            self._remove(entry, True)
            return nothing
        return self._doubt(entry, self._remove)

    def _doubt(self, entry: Entry, then: Callable[[Entry], None]) -> Callable[[], None]:
        self._number += 1
        number = self._number
        self._set(entry, number, True)

        def kept() -> None:
            if self._entries.get(_partition(entry), {}).get(entry) == number:
                then(entry)

        return kept

    def _set(self, entry: Entry, number: int, at_once: bool = False) -> None:
        place = _partition(entry)
        self._entries.setdefault(place, {})[entry] = number
        self._changed(place, at_once)

    def _remove(self, entry: Entry, at_once: bool = False) -> None:
        place = _partition(entry)
        del self._entries[place][entry]
        self._changed(place, at_once)

    def _changed(self, place: int, at_once: bool) -> None:
        if at_once and len(self._entries[place]) <= _LONG:
            self._write(place)
        else:
            self._late[place] = None

    def tick(self) -> None:
        """To be called a few times a second: write what is to be written."""
        self._may_write = min(self._may_write + _ENTRIES_A_TICK, _ENTRIES_A_TICK)
        while self._late and self._may_write > 0:
            place = next(iter(self._late))
            self._may_write -= len(self._entries[place]) + 1
            self._write(place)

    def flush(self) -> None:
        """Write all of it: the router ends."""
        for place in list(self._late):
            self._write(place)

    def _write(self, place: int) -> None:
        self._late.pop(place, None)
        entries = self._entries[place]
        value = _encode([(*entry, bool(number)) for entry, number in entries.items()]) if entries else None
        if not entries:
            del self._entries[place]
        self._records.put(SPACE, key_in(place, _LABEL), value, 0, partial(self._written, place), own=True)

    def _written(self, place: int, status: int) -> None:
        if status != m.OK:
            self._entries.setdefault(place, {})
            self._late[place] = None

    def restore(self) -> None:
        """Read what was told before this router began. To be called once."""
        self._unread = len(self._partitions) + 1
        begun = key_in(self._partitions[0], _BEGUN)
        self._records.change(SPACE, begun, PutIfAbsent(b"1", 0), self._restored_begun, own=True)
        for place in self._partitions:
            self._records.read(SPACE, key_in(place, _LABEL), partial(self._restored, place))

    def _restored_begun(self, status: int, changed: Changed | None) -> None:
        self._unread -= 1
        self.begun = changed is not None and changed.outcome == UNCHANGED

    def _restored(self, place: int, status: int, value: bytes | None) -> None:
        self._unread -= 1
        if status != m.OK or value is None:
            return
        try:
            entries = _decoder.decode(value)
        except msgspec.MsgspecError as error:
            logs.limited("webhook.told_unreadable", at="error", error=str(error))
            return
        self._number += 1  # of no event
        self._entries[place] = {
            (app, channel, user): self._number * doubtful for app, channel, user, doubtful in entries
        }


def _partition(entry: Entry) -> int:
    return partition(channel_address(entry[0], entry[1]))
