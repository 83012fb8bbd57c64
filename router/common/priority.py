"""The priority of the processes that all others wait for: the router and the supervisor.

When a machine has more to do than it can, the kernel shares its cores out evenly among the processes that want them.
With sixty workers the router then has a sixtieth, and no worker can go on before the router has answered it: the farm
does less the more is asked of it, until devices give up waiting and all work is for connections that have ended. A
router that comes first costs the workers only the time that they would have waited for it.
"""

from __future__ import annotations

import os
import threading
from typing import Final

ORIGINAL: Final = os.getpriority(os.PRIO_PROCESS, 0)
"""The nice value that this process was started with."""


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
