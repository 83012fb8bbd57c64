"""Counts that the processes of a run read from each other's memory, without a message: one number each, written by one
process and read by all."""

import mmap
import os
from types import TracebackType

NUMBER_BYTES = 8


class SharedCounts:
    """So many numbers, all 0 at first, in memory without a file; other processes of the same user find it by `path`. A
    context manager."""

    def __init__(self, count: int) -> None:
        self._descriptor = os.memfd_create("bench-counts", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, max(1, count) * NUMBER_BYTES)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.numbers = numbers_in(self.path)

    def __enter__(self) -> "SharedCounts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.numbers.release()
        os.close(self._descriptor)


def numbers_in(path: str) -> memoryview:
    """The numbers behind a path, as long as the caller holds them. Raises OSError if they are gone."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(descriptor, 0)).cast("Q")
    finally:
        os.close(descriptor)
