"""What the files of a control group say, of versions 1 and 2; pure, but for `reader`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

QUOTA_US: Final = 2_000
"""CPU time that a group has in a period. Short, so that a farm with a tenth of a core is not stopped for long at a
time; the kernel takes no less than 1 ms."""
PERIOD_US: Final = (10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory charged to a group, in bytes. `used` is what can't be had back by dropping file pages that nobody has
    used for long; `peak` and `total` count those, too. `buffers` are the pages of TCP's buffers."""

    used: int
    total: int
    user: int
    kernel: int
    buffers: int
    cache: int
    peak: int | None
    oom_kills: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of a group since it was made, in seconds, and the periods in which it wanted more than its quota."""

    seconds: float | None
    periods: int
    throttled: int
    throttled_seconds: float


def memory_v1(read: Callable[[str], str]) -> Memory:
    """From the files of a memory group of version 1; `read` gives the text of one, "" if there is none."""
    stat = _table(read("memory.stat"))
    buffers = _number(read("memory.kmem.tcp.usage_in_bytes"))
    total = _number(read("memory.usage_in_bytes")) + buffers  # they have a counter of their own
    return Memory(
        used=total - stat.get("total_inactive_file", 0),
        total=total,
        user=stat.get("total_rss", 0),
        kernel=_number(read("memory.kmem.usage_in_bytes")) + buffers,
        buffers=buffers,
        cache=stat.get("total_cache", 0),
        peak=_number(read("memory.max_usage_in_bytes")) or None,
        oom_kills=_table(read("memory.oom_control")).get("oom_kill", 0),
    )


def memory_v2(read: Callable[[str], str]) -> Memory:
    """The same of version 2."""
    stat = _table(read("memory.stat"))
    buffers = stat.get("sock", 0)
    total = _number(read("memory.current"))
    kernel = stat.get("kernel", stat.get("slab", 0) + stat.get("kernel_stack", 0) + stat.get("pagetables", 0))
    return Memory(
        used=total - stat.get("inactive_file", 0),
        total=total,
        user=stat.get("anon", 0),
        kernel=kernel + buffers,
        buffers=buffers,
        cache=stat.get("file", 0),
        peak=_number(read("memory.peak")) or None,
        oom_kills=_table(read("memory.events")).get("oom_kill", 0),
    )


def cpu_v1(read: Callable[[str], str], usage: str) -> Cpu:
    """`usage` is the text of cpuacct.usage, in nanoseconds; "" where that is not counted."""
    stat = _table(read("cpu.stat"))
    seconds = _number(usage) / 1e9 if usage else None
    return Cpu(seconds, stat.get("nr_periods", 0), stat.get("nr_throttled", 0), stat.get("throttled_time", 0) / 1e9)


def cpu_v2(read: Callable[[str], str]) -> Cpu:
    stat = _table(read("cpu.stat"))
    throttled = stat.get("throttled_usec", 0) / 1e6
    return Cpu(stat.get("usage_usec", 0) / 1e6, stat.get("nr_periods", 0), stat.get("nr_throttled", 0), throttled)


def quota(cpus: float) -> tuple[int, int]:
    """CPU time and the period that it is for, in microseconds, for this share of a core (or number of cores)."""
    low, high = PERIOD_US
    period = min(max(round(QUOTA_US / cpus), low), high)
    return max(1_000, round(period * cpus)), period


def _table(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) == 2 and words[1].isdecimal()}


def _number(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0


def reader(folder: Path) -> Callable[[str], str]:
    """Gives the text of a file of this folder, "" if there is none."""

    def read(name: str) -> str:
        try:
            return (folder / name).read_text()
        except OSError:
            return ""

    return read
