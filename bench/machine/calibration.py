"""How fast a core of this machine is: its clock, from a loop whose clocks a byte are known.

MD5 is one chain of dependent additions and rotations, 64 steps for 64 bytes, which no processor of the last twenty
years does in parallel: about 4.9 clocks a byte on all of them, from the Opteron of 2007 on. Its bytes a second thus
tell the clock that the core really runs at, whatever its label says. The best of many short tries counts: on a busy
machine, or a shared host, the others were disturbed.
"""

import hashlib
import time
from typing import Final

CLOCKS_A_BYTE: Final = 4.9
TRIES: Final = 60
BLOCK: Final = bytes(1 << 20)


def clock_ghz() -> float:
    """The clock of the core that this runs on, in GHz; takes some 0.2 s."""
    best = float("inf")
    for _ in range(TRIES):
        start = time.perf_counter()
        hashlib.md5(BLOCK, usedforsecurity=False).digest()
        best = min(best, time.perf_counter() - start)
    return len(BLOCK) * CLOCKS_A_BYTE / best / 1e9
