"""A path that several dialects serve: the first message of a device decides which one it speaks.

Two protocols may have the path `/`, for example, and differ only in their hello. The dialects do not know of this:
the path is served by a `SharedPath`, whose sessions become sessions of the dialect that claims them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from farm.dialects import Become, Close, DeviceSide, Dialect, Effects, Session
from farm.transports.request import Request
from router.common.close_codes import NORMAL


class Undecided(Session, msgspec.Struct, gc=False, eq=False):
    """A connection that has sent nothing yet."""

    _dialects: Sequence[Dialect]
    _request: Request

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        for dialect in self._dialects:
            if dialect.claims(message):
                opened = dialect.opened(self._request)
                if not isinstance(opened, Session):
                    raise TypeError(f"{dialect!r} shares a path, where it can only give a session")
                return (Become(opened, message, binary),)
        return (Close(NORMAL, "no dialect on this path knows this message"),)

    def tick(self, silent: float) -> tuple[Effects, float]:
        return (Close(NORMAL, "nothing was sent in time"),), 0


class SharedPath(Dialect):
    """Dialects on one path, asked in order: the more particular first."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self.dialects = tuple(dialects)
        # A silent device may be of any of them: so it has the longest of their deadlines, and 0 is none.
        deadlines = [dialect.first_tick for dialect in dialects]
        self._first_tick = max(deadlines) if all(deadlines) else 0.0

    @property
    def first_tick(self) -> float:
        return self._first_tick

    @property
    def asks_of_messages(self) -> bool:
        return any(dialect.asks_of_messages for dialect in self.dialects)

    def subprotocol(self, offered: list[str]) -> str | None:
        return next((taken for d in self.dialects if (taken := d.subprotocol(offered)) is not None), None)

    def claims(self, first: bytes) -> bool:
        return any(dialect.claims(first) for dialect in self.dialects)

    def opened(self, request: Request) -> Session:
        # Without its headers, which are 1 KB.
        slim = replace(request, headers={})
        return Undecided(self.dialects, slim)


def by_path(served: Iterable[tuple[DeviceSide, Dialect]]) -> dict[str, Dialect]:
    """Which dialect answers on which path."""
    found: dict[str, list[Dialect]] = {}
    for side, dialect in sorted(served, key=lambda entry: entry[0].rank):
        for path in side.paths:
            found.setdefault(path, []).append(dialect)
    return {path: all_of[0] if len(all_of) == 1 else SharedPath(all_of) for path, all_of in found.items()}
