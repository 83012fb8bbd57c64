"""What webhooks were told and its opposite not yet: which channels are occupied, and which users are members. Pure.

It is kept in the store, so that the next life of a router can compare it with what is there: what ended while the
router was away, or ended with it, is told then. There is a record for each partition, with what belongs to its
channels: it moves with them. A record is written with the events that make it differ, in the same commit. One that is
long is written a few times a second instead: a crash in between may cost an opposite, or tell something twice.
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

SPACE: Final = "pusher.told"
_LABEL: Final = b"told"
_LONG: Final = 200
"""Entries of a record from which on it is not written with each of them."""

Entry = tuple[str, str, str | None]
"""Application and channel; and a user, or None for the channel itself."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(list[Entry])


class Told:
    """Of the channels that this router owns. owns: whether a key is this router's."""

    def __init__(self, records: Records, owns: Callable[[bytes], bool]) -> None:
        self._records = records
        self._partitions = [number for number in range(PARTITIONS) if owns(key_in(number, _LABEL))]
        self._entries: dict[int, dict[Entry, None]] = {}
        self._late: set[int] = set()  # partitions whose records are to be written
        self._unread = 0
        self.known = False
        """Whether it is known what was told before this router began; if not, nothing of it was in the store."""

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries.get(_partition(entry), ())

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entries in self._entries.values() for entry in entries)

    @property
    def read(self) -> bool:
        """Whether the store has given what it has."""
        return not self._unread

    def add(self, entry: Entry) -> None:
        """This is told now."""
        number = _partition(entry)
        entries = self._entries.setdefault(number, {})
        if entry not in entries:
            entries[entry] = None
            self._changed(number)

    def remove(self, entry: Entry) -> None:
        """Its opposite is told now."""
        number = _partition(entry)
        entries = self._entries.get(number)
        if entries is not None and entry in entries:
            del entries[entry]
            self._changed(number)

    def _changed(self, number: int) -> None:
        if len(self._entries[number]) > _LONG:
            self._late.add(number)
        elif number not in self._late:
            self._write(number)

    def tick(self) -> None:
        """To be called a few times a second: write what is to be written."""
        late, self._late = self._late, set()
        for number in late:
            self._write(number)

    def _write(self, number: int) -> None:
        entries = self._entries[number]
        value = _encode(list(entries)) if entries else None
        if not entries:
            del self._entries[number]
        self._records.put(SPACE, key_in(number, _LABEL), value, 0, partial(self._written, number), own=True)

    def _written(self, number: int, status: int) -> None:
        if status != m.OK and number in self._entries:
            self._late.add(number)

    def restore(self) -> None:
        """Read what was told before this router began. To be called once."""
        self._unread = len(self._partitions)
        for number in self._partitions:
            self._records.read(SPACE, key_in(number, _LABEL), partial(self._restored, number))

    def _restored(self, number: int, status: int, value: bytes | None) -> None:
        self._unread -= 1
        if status != m.OK or value is None:
            return
        try:
            entries = _decoder.decode(value)
        except msgspec.MsgspecError as error:
            logs.limited("webhook.told_unreadable", at="error", error=str(error))
            return
        self.known = True
        self._entries[number] = dict.fromkeys(entries)


def _partition(entry: Entry) -> int:
    return partition(channel_address(entry[0], entry[1]))
