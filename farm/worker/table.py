"""Connections by descriptor: a list takes 8 bytes for each, where a dict takes 40. Pure."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from farm.worker.connection import Connection


class Table(MutableMapping[int, Connection]):
    """What a dict would be. Descriptors are small numbers: the kernel gives the lowest that is free."""

    __slots__ = ("_count", "rows")

    def __init__(self) -> None:
        self.rows: list[Connection | None] = []
        """By descriptor, up to the highest so far: for readers on the hot path."""
        self._count = 0

    def get(self, fd: int, default: Connection | None = None) -> Connection | None:  # type: ignore[override]
        rows = self.rows
        return (rows[fd] or default) if 0 <= fd < len(rows) else default

    def __getitem__(self, fd: int) -> Connection:
        found = self.get(fd)
        if found is None:
            raise KeyError(fd)
        return found

    def __setitem__(self, fd: int, connection: Connection) -> None:
        rows = self.rows
        if fd >= len(rows):
            rows.extend([None] * (fd + 1 - len(rows)))
        if rows[fd] is None:
            self._count += 1
        rows[fd] = connection

    def __delitem__(self, fd: int) -> None:
        self[fd]  # Raises: KeyError.
        self.rows[fd] = None
        self._count -= 1

    def __iter__(self) -> Iterator[int]:
        return (fd for fd, connection in enumerate(self.rows) if connection is not None)

    def __len__(self) -> int:
        return self._count
