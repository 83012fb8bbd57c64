"""The right of way of the processes that all others wait for: the supervisor always, the router when it is starved.

When a machine has more to do than it can, the kernel shares its cores out evenly among the processes that want them.
With sixty workers the router then has a sixtieth, and no worker can go on before the router has answered it: the farm
does less the more is asked of it, until devices give up waiting and all work is for those that have gone. A router
that comes first costs the workers nothing but what they would have waited for it.

In a machine that is only busy it must not come first: it would run as soon as there is a little to do, and a turn costs
the same whatever it finds. That was a tenth more CPU for each push.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

ORIGINAL: Final = os.getpriority(os.PRIO_PROCESS, 0)
"""The nice value that this process was started with."""
STARVED: Final = 4.0
"""It is starved if it waits for a core for so many times as long as it has one."""
LEAST_WAIT: Final = 0.25
"""And for so large a part of the time."""
HOLD_S: Final = 30.0
"""So long it comes first; then it is looked at again."""
_SCHEDSTAT: Final = Path("/proc/self/schedstat")


class RightOfWay:
    """When the router comes first. Pure: times in, seconds as they add up; and whether it does out."""

    def __init__(self) -> None:
        self._since = self._ran = self._waited = 0.0
        self._until = float("-inf")

    def wanted(self, now: float, ran: float, waited: float) -> bool:
        """ran, waited: so far, with a core and for one. To be asked about once a second."""
        passed, did, stood = now - self._since, ran - self._ran, waited - self._waited
        self._since, self._ran, self._waited = now, ran, waited
        if stood > STARVED * did and stood > LEAST_WAIT * passed:
            self._until = now + HOLD_S
        return now < self._until


class Starvation:
    """Has this process come first, by this nice value, while it is starved. Made and asked by the main thread."""

    def __init__(self, nice: int) -> None:
        self._lowest = nice
        self._usual = os.getpriority(os.PRIO_PROCESS, 0)
        self.nice = self._usual
        """What it runs at now."""
        self._rule = RightOfWay()

    def look(self, now: float) -> bool | None:
        """Returns: whether it comes first, if that has changed; None if not."""
        if self._lowest >= self._usual:
            return None
        found = times()
        first = found is not None and self._rule.wanted(now, *found)
        if first == (self.nice != self._usual):
            return None
        wanted = take(self._lowest) if first else self._usual
        if wanted == self.nice:
            return None  # it is not allowed
        for thread in os.listdir("/proc/self/task"):
            try:
                os.setpriority(os.PRIO_PROCESS, int(thread), wanted)
            except OSError:  # it has ended
                continue
        self.nice = wanted
        return first


def times() -> tuple[float, float] | None:
    """For how many seconds the main thread has had a core so far, and has waited for one; None where the kernel does
    not tell."""
    try:
        ran, waited, _ = _SCHEDSTAT.read_text().split()
    except (OSError, ValueError):
        return None
    return int(ran) / 1e9, int(waited) / 1e9


def take(nice: int) -> int:
    """Run at this nice value (sched(7)), or at the lowest above it that the system allows (RLIMIT_NICE, CAP_SYS_NICE).

    It is this thread's, and that of those which it starts from now on. It is never made higher. Returns: what it is.
    """
    now = os.getpriority(os.PRIO_PROCESS, 0)
    for wanted in range(nice, now):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, wanted)
        except OSError:  # EACCES, or EPERM in some sandboxes
            continue
        return wanted
    return now


def lowest() -> int:
    """The lowest nice value that is allowed. It is tried out in a thread: Linux keeps one for each."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(take(-20)))
    thread.start()
    thread.join()
    return found[0]
