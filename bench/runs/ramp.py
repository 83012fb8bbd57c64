"""The ramp to a farm's first real limit: what is looked at while devices come up, and the limit's name.

`first_limit` is pure: a rule for each limit, in the order in which they are believed. `Watch` feeds it while devices
are brought up, and keeps the points of the memory curve.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.figures.profiles import CONNECTION_BYTES
from bench.machine.cgroups import Group
from bench.machine.group_files import Cpu, Memory
from bench.machine.procfs import available_memory, cpu_seconds, descendants, free_files, proportional_memory

STOP_AT: Final = 0.97
"""It stops here, so that the kernel's OOM killer never has a reason to strike."""
MACHINE_SPARE_BYTES: Final = 700 << 20
"""Memory of the whole machine that is left alone."""
FILES_SPARE: Final = 5_000
RATE_SECONDS: Final = 10.0
RATE_FLOOR: Final = 50.0
"""Set-ups a second. With less, over `RATE_SECONDS`, a farm of this size would take hours to come back after a crash."""
FAILURES: Final = 0.02
DROPS: Final = 0.001
THROTTLED: Final = 0.5
"""From this part of the periods on in which the farm wanted more than its share, CPU is what it lacks."""
FINE_PART: Final = 0.1
"""With this part of the memory left, devices come slowly: `FILL_A_SECOND` of the memory in a second at most."""
FILL_A_SECOND: Final = 0.02
LAST_STEP: Final = 500
LEAST_OPENING: Final = 64
MOST_OPENING: Final = 16_384
MOST_A_WAVE: Final = 180_000
POINTS: Final = 100
OWN_ERRORS: Final = ("EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM", "EADDRINUSE")
"""Errors of the load's own sockets: no descriptor, no file, no port, no memory."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What ended a ramp. `kind`: memory, descriptors, CPU, load generator, failures, none."""

    kind: str
    text: str

    def fields(self) -> dict[str, str]:
        """For JSON."""
        return {"kind": self.kind, "text": self.text}


@dataclass(frozen=True, slots=True)
class State:
    """A ramp at one moment; memory in bytes. `rate`: set-ups a second lately, None while it is not known. `failed` and
    `wanted` count since the wave began, `failures` has their kinds once the load has reported them. `throttled`: part
    of the periods lately. `capacity`: connections that the workers take in all. `free_files`: that the machine may
    still open."""

    devices: int
    used: int
    memory: int
    oom_kills: int = 0
    capacity: int | None = None
    wanted: int = 0
    failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    overdue: int = 0
    rate: float | None = None
    throttled: float = 0.0
    machine_available: int = 1 << 60
    free_files: int = 1 << 60


def first_limit(state: State) -> Limit | None:
    """The limit that this state shows, None if there is none yet."""
    used = f"{state.used / 2**20:,.0f} of {state.memory / 2**20:,.0f} MiB"
    if state.oom_kills:
        return Limit(
            "memory", f"the kernel killed {state.oom_kills} processes of the farm for want of memory, at {used}"
        )
    if state.used >= STOP_AT * state.memory:
        return Limit("memory", f"{used} used, {STOP_AT:.0%} of the limit")
    full = sum(count for kind, count in state.failures.items() if "503" in kind)
    if full or (state.capacity is not None and state.devices >= state.capacity):
        room = "" if state.capacity is None else f", there is room for {state.capacity:,}"
        return Limit("descriptors", f"workers are full: {state.devices:,} devices are connected{room}")
    own = {kind: count for kind, count in state.failures.items() if kind.endswith(OWN_ERRORS)}
    if own:
        return Limit("load generator", f"its own sockets failed: {_kinds(own)}")
    if state.machine_available < MACHINE_SPARE_BYTES:
        left = f"{state.machine_available / 2**20:,.0f} MiB left on the machine"
        return Limit("load generator", f"this machine's memory, which holds both ends: {left}, {used} used by the farm")
    if state.free_files < FILES_SPARE:
        return Limit("load generator", f"this machine's open files (fs.file-max): {state.free_files:,} left")
    starved = state.throttled >= THROTTLED
    cpu = f"the farm wanted more than its share of CPU in {state.throttled:.0%} of the time"
    if state.rate is not None and state.rate < RATE_FLOOR:
        text = f"only {state.rate:,.0f} set-ups/s"
        return Limit("CPU", f"{text}; {cpu}") if starved else Limit("failures", f"{text}, and CPU was to be had")
    if state.failed > max(10.0, FAILURES * state.wanted):
        text = f"{state.failed:,} set-ups failed" + (f": {_kinds(state.failures)}" if state.failures else "")
        return Limit("CPU", f"{text}; {cpu}") if starved else Limit("failures", text)
    if state.dropped > DROPS * state.devices or state.overdue > DROPS * state.devices:
        text = f"{state.dropped:,} connections were dropped, {state.overdue:,} pings not answered in time"
        return Limit("CPU", f"{text}; {cpu}") if starved else Limit("failures", text)
    return None


def _kinds(failures: dict[str, int]) -> str:
    return ", ".join(f"{count:,} x {kind}" for kind, count in Counter(failures).most_common(3))


class Gauge:
    """Memory and CPU of the farm in a group; the sockets' kernel memory that the group is not charged is added."""

    period = 0.25

    def __init__(self, group: Group, missing: float = 0.0) -> None:
        self._group = group
        self._missing = missing

    def memory(self, devices: int) -> Memory:
        """Now, with so many devices connected."""
        memory = self._group.memory()
        more = int(self._missing * devices)
        return replace(memory, used=memory.used + more, total=memory.total + more, kernel=memory.kernel + more)

    def cpu(self) -> Cpu:
        return self._group.cpu()


class Account(Gauge):
    """The same where no group can be had: the farm's processes, and for each connection the kernel's objects of one
    end. What the kernel's memory grows by on the whole machine would do if nothing else ran on it."""

    period = 2.0

    def __init__(self, socket_bytes: float) -> None:
        self.supervisor: int | None = None
        self._socket_bytes = socket_bytes

    def memory(self, devices: int) -> Memory:
        user = sum(proportional_memory(pid) for pid in self._pids())
        kernel = int(devices * self._socket_bytes)
        return Memory(user + kernel, user + kernel, user, kernel, 0, 0, None, 0)

    def cpu(self) -> Cpu:
        return Cpu(sum(cpu_seconds(pid) or 0.0 for pid in self._pids()), 0, 0, 0.0)

    def _pids(self) -> list[int]:
        return [self.supervisor, *descendants(self.supervisor)] if self.supervisor is not None else []


class Watch:
    """Looks at the farm and the machine while devices come up; `limit` is set when there is a reason to stop.

    Args:
      memory: the farm's, bytes
      count: gives the sum of a counter of the load processes: `ready`, `failed`
    """

    def __init__(self, gauge: Gauge, memory: int, count: Callable[[str], int]) -> None:
        self.limit: Limit | None = None
        self.capacity: int | None = None
        self.points: list[dict[str, float]] = []
        self.peak = 0
        self.throttled = 0.0
        self._gauge = gauge
        self._memory = memory
        self._count = count
        self._start = time.monotonic()
        self._next = 0.0
        self._every = 1
        self._looks = 0
        self._wanted = self._failed_before = self._ready_before = 0
        self._recent: deque[tuple[float, int, Cpu]] = deque()

    def wave(self, wanted: int) -> None:
        """So many more devices are brought up from now on."""
        self._wanted = wanted
        self._failed_before, self._ready_before = self._count("failed"), self._count("ready")
        self._recent.clear()

    def look(self) -> bool:
        """Look, if it is time to; whether a limit was found."""
        now = time.monotonic()
        if self.limit is None and now >= self._next:
            self._next = now + self._gauge.period
            self.limit = first_limit(self.state())
        return self.limit is not None

    def state(self, failures: dict[str, int] | None = None, dropped: int = 0, overdue: int = 0) -> State:
        """What there is now; a point of the curve is kept, too."""
        devices = self._count("ready")
        memory = self._gauge.memory(devices)
        self.peak = max(self.peak, memory.used)
        self._keep(devices, memory)
        return State(
            devices=devices,
            used=memory.used,
            memory=self._memory,
            oom_kills=memory.oom_kills,
            capacity=self.capacity,
            wanted=self._wanted,
            failed=self._count("failed") - self._failed_before,
            failures=failures or {},
            dropped=dropped,
            overdue=overdue,
            rate=self._rate(devices),
            throttled=self.throttled,
            machine_available=available_memory(),
            free_files=free_files(),
        )

    def _rate(self, devices: int) -> float | None:
        """Over the last seconds, None for the first of a wave and when nearly all of it is there."""
        now, recent = time.monotonic(), self._recent
        recent.append((now, devices, self._gauge.cpu()))
        while len(recent) > 2 and now - recent[1][0] > RATE_SECONDS:
            recent.popleft()
        then, before, cpu = recent[0]
        periods = recent[-1][2].periods - cpu.periods
        self.throttled = (recent[-1][2].throttled - cpu.throttled) / periods if periods else 0.0
        left = self._wanted - (devices - self._ready_before) - (self._count("failed") - self._failed_before)
        if now - then < RATE_SECONDS or left < 0.05 * self._wanted:
            return None
        return (devices - before) / (now - then)

    def _keep(self, devices: int, memory: Memory) -> None:
        """Keep every n-th point, so that there are never more than `POINTS`."""
        self._looks += 1
        if self._looks % self._every:
            return
        self.points.append(
            {
                "seconds": round(time.monotonic() - self._start, 2),
                "devices": devices,
                "used": memory.used,
                "user": memory.user,
                "kernel": memory.kernel,
            }
        )
        if len(self.points) >= POINTS:
            self.points = self.points[::2]
            self._every *= 2


def per_connection(before: Memory, after: Memory, devices: int) -> dict[str, Any]:
    """Bytes a connection between two readings; None without devices."""

    def share(first: int, last: int) -> float | None:
        return (last - first) / devices if devices else None

    return {
        "user": share(before.user, after.user),
        "kernel": share(before.kernel, after.kernel),
        "all": share(before.used, after.used),
    }


def opening_for(memory: int) -> int:
    """Set-ups that are under way at once: those go on when the ramp is stopped, and must not take more
    than a small part of what is left then."""
    return max(LEAST_OPENING, min(MOST_OPENING, int(memory * (1 - STOP_AT) / 3 / CONNECTION_BYTES)))


@dataclass(frozen=True, slots=True)
class Wave:
    """So many devices more; `rate`: set-ups a second, 0 is as fast as they go."""

    devices: int
    rate: float = 0.0


def next_wave(devices: int, used: int, base: int, memory: int, most: int) -> Wave:
    """The next wave of a ramp: half of what still fits, by what a device took so far; near the end a little more than
    fits, so that the limit is really met, and slowly, so that it is not overrun. Never more than `most` devices."""
    connection = max(1.0, (used - base) / devices) if devices else float(CONNECTION_BYTES)
    room = STOP_AT * memory - used
    if room > FINE_PART * memory:
        return Wave(max(1, min(int(room / 2 / connection), MOST_A_WAVE, most)) if most else 0)
    size = int(max(room * 1.05, 0.0) / connection) + LAST_STEP
    return Wave(max(0, min(size, MOST_A_WAVE, most)), pace(memory, connection))


def first_wave(devices: int, used: int, memory: int) -> Wave:
    """All of a figure in one wave, slowly where it may not fit."""
    fits = used + devices * CONNECTION_BYTES < (1 - FINE_PART) * memory
    return Wave(devices, 0.0 if fits else pace(memory, CONNECTION_BYTES))


def pace(memory: int, connection: float) -> float:
    """Set-ups a second with which so much memory fills slowly enough to stop in time."""
    return FILL_A_SECOND * memory / connection
