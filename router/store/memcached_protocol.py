"""memcached's text protocol, as far as the store speaks it. Pure: requests and replies are bytes.

Source: doc/protocol.txt of memcached 1.6. Many requests are sent at once and each is replied to in order, so a batch
costs one turn for its reads and one for its writes, whatever it holds. All writes are conditional: on the entry being
as it was read (its unique number), or not there.

Not by a library: pymemcache 4.0, the usual one, waits for the reply to each conditional write before it sends the next,
which takes ten times as long, and its `raw_command` loses what comes in two parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

CRLF: Final = b"\r\n"
MAX_KEY: Final = 250
"""Bytes of a key."""
_MAX_LINE: Final = 2048
_END: Final = b"END"

DONE: Final = 0
"""Outcome of a write: it is done."""
DIFFERS: Final = 1
"""Outcome of a write: the entry was not as it was read, so nothing was done."""
NO_ROOM: Final = 2
"""Outcome of a write: the server has no room for it, or not for an entry of this size. What was there is there."""

_OUTCOMES: Final = {
    b"STORED": DONE,
    b"NOT_STORED": DIFFERS,
    b"EXISTS": DIFFERS,
    b"NOT_FOUND": DIFFERS,
    b"HD": DONE,
    b"NF": DONE,  # of a deletion: it has gone by itself
    b"EX": DIFFERS,
    b"NS": DIFFERS,
}
_REFUSALS: Final = (b"SERVER_ERROR out of memory", b"SERVER_ERROR object too large")

STATISTICS: Final = b"stats\r\n"
SETTINGS: Final = b"stats settings\r\n"


class ProtocolError(Exception):
    """What came is no answer to what was asked."""


class Entry(NamedTuple):
    """What memcached has under a key."""

    value: bytes
    unique: int  # changes whenever the entry does


def get(keys: Iterable[bytes]) -> bytes:
    """The request for these entries."""
    return b"gets " + b" ".join(keys) + CRLF


def put(key: bytes, value: bytes, exptime: int, before: Entry | None) -> bytes:
    """The request that writes an entry if it is as it was before; None: if there is none.

    exptime: seconds from now, up to 30 days; beyond, unix time; 0: never.
    """
    if before is None:
        return b"add %b 0 %d %d\r\n%b\r\n" % (key, exptime, len(value), value)
    return b"cas %b 0 %d %d %d\r\n%b\r\n" % (key, exptime, len(value), before.unique, value)


def delete(key: bytes, before: Entry) -> bytes:
    """The request that deletes an entry if it is as it was before."""
    return b"md %b C%d\r\n" % (key, before.unique)


class Entries:
    """The reply to `get`: those that there are, by key."""

    def __init__(self) -> None:
        self.found: dict[bytes, Entry] = {}
        self._rest = b""

    def feed(self, data: bytes) -> bool:
        """Take what has come. Returns: whether that was the end.

        Raises: ProtocolError.
        """
        data = self._rest + data if self._rest else data
        at = 0
        while (end := data.find(CRLF, at)) >= 0:
            line = data[at:end]
            if line == _END:
                return _ended(data, end)
            fields = line.split(b" ")
            if len(fields) != 5 or fields[0] != b"VALUE":
                raise ProtocolError(_shown(line))
            begin, unique = end + 2, _number(fields[4], line)
            end = begin + _number(fields[3], line)
            if len(data) < end + 2:
                break
            self.found[fields[1]] = Entry(data[begin:end], unique)
            at = end + 2
        else:
            _check_line(data, at)
        self._rest = data[at:]
        return False


class Outcomes:
    """The replies to so many writes, in their order."""

    def __init__(self, number: int) -> None:
        self.found: list[int] = []
        self._number = number
        self._rest = b""

    def feed(self, data: bytes) -> bool:
        """Take what has come. Returns: whether that was the end.

        Raises: ProtocolError.
        """
        *lines, self._rest = (self._rest + data).split(CRLF)
        for line in lines:
            outcome = _OUTCOMES.get(line)
            if outcome is None:
                if not line.startswith(_REFUSALS):
                    raise ProtocolError(_shown(line))
                outcome = NO_ROOM
            self.found.append(outcome)
        if len(self.found) > self._number or (len(self.found) == self._number and self._rest):
            raise ProtocolError(_shown(self._rest or lines[-1]))
        _check_line(self._rest, 0)
        return len(self.found) == self._number


class Statistics:
    """The reply to STATISTICS and SETTINGS: values by name."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._rest = b""

    def feed(self, data: bytes) -> bool:
        """Take what has come. Returns: whether that was the end.

        Raises: ProtocolError.
        """
        data = self._rest + data
        at = 0
        while (end := data.find(CRLF, at)) >= 0:
            line = data[at:end]
            if line == _END:
                return _ended(data, end)
            kind, _, pair = line.decode("latin-1").partition(" ")
            if kind != "STAT":
                raise ProtocolError(_shown(line))
            name, _, value = pair.partition(" ")
            self.found[name] = value
            at = end + 2
        _check_line(data, at)
        self._rest = data[at:]
        return False

    def number(self, name: str) -> int:
        """The value of this name, 0 if there is none."""
        text = self.found.get(name, "")
        return int(text) if text.isdecimal() else 0


def _ended(data: bytes, end: int) -> bool:
    if len(data) != end + 2:
        raise ProtocolError(_shown(data[end + 2 :]))
    return True


def _number(field: bytes, line: bytes) -> int:
    if not field.isdigit() or len(field) > 20:
        raise ProtocolError(_shown(line))
    return int(field)


def _check_line(data: bytes, at: int) -> None:
    if len(data) - at > _MAX_LINE:
        raise ProtocolError(_shown(data[at:]))


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("latin-1"))
