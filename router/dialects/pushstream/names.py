"""The names of channels with stored messages, in the store: so that a router that is new can list them.

They stand in records of some names each, by a part of the channel's address. The record is written with the first
message that a channel stores, before it, and again when the channel is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import msgspec

from router.common.messages import OK
from router.common.partitions import PARTITIONS, key_in, partition
from router.core.facades import Records

SPACE: Final = "pushstream.names"
RECORDS: Final = 8 * PARTITIONS
"""So few that a router reads all of them in a moment, so many that each is short."""

_encode = msgspec.json.Encoder().encode
_names_in: Final = msgspec.json.Decoder(list[str]).decode


def _number(key: bytes) -> int:
    return partition(key) * 8 + key[0] % 8


def _record_key(number: int) -> bytes:
    """In the partition of the channels whose names it holds, so that these have one owner and are in one file."""
    return key_in(number // 8, number.to_bytes(2, "big"))


class Names:
    """Those of the channels that this router owns. Until a record has been read it is not written."""

    def __init__(self, records: Records, owns: Callable[[bytes], bool]) -> None:
        self._records = records
        self._names: dict[int, dict[str, None]] = {}
        self._unread = {number for number in range(RECORDS) if owns(_record_key(number))}
        self._changed: set[int] = set()  # that are to be written: not read yet, or the store has failed

    @property
    def complete(self) -> bool:
        """Whether all have been read."""
        return not self._unread

    def add(self, name: str, key: bytes) -> None:
        """The channel of this address stores messages from now on."""
        number = _number(key)
        self._names.setdefault(number, {})[name] = None
        self._write(number)

    def remove(self, name: str, key: bytes) -> None:
        """It stores none any more."""
        number = _number(key)
        there = self._names.get(number)
        if there is not None and name in there:
            del there[name]
            if not there:
                del self._names[number]
            self._write(number)

    def _write(self, number: int) -> None:
        if number in self._unread:
            self._changed.add(number)
            return
        there = self._names.get(number)
        value = _encode(list(there)) if there else None
        self._records.put(SPACE, _record_key(number), value, 0, partial(self._written, number), own=True)

    def _written(self, number: int, status: int) -> None:
        if status != OK:
            self._changed.add(number)

    def write_again(self) -> None:
        """Write what the store could not write. To be called about once a second."""
        for number in self._changed - self._unread:
            self._changed.discard(number)
            self._write(number)

    def read(self, found: Callable[[list[str]], None], done: Callable[[], None]) -> None:
        """Read what has not been read; `found` gets the names of each record, then `done` is called."""
        waiting = set(self._unread)

        def read_one(number: int, status: int, value: bytes | None) -> None:
            if status == OK:
                self._unread.discard(number)
                self._read(number, _decoded(value), found)
            waiting.discard(number)
            if not waiting:
                done()

        for number in sorted(waiting):
            self._records.read(SPACE, _record_key(number), partial(read_one, number))

    def _read(self, number: int, names: Iterable[str], found: Callable[[list[str]], None]) -> None:
        there = self._names.setdefault(number, {})
        new = [name for name in names if name not in there]
        there.update(dict.fromkeys(new))
        if not there:
            del self._names[number]
        if number in self._changed:
            self._changed.discard(number)
            self._write(number)
        if new:
            found(new)


def _decoded(value: bytes | None) -> list[str]:
    try:
        return [] if value is None else _names_in(value)
    except msgspec.MsgspecError:  # whatever wrote it: the channels are there all the same, and not listed
        return []
