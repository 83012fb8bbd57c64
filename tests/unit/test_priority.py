"""The nice value of the router and the supervisor: taken where it is allowed, and by no thread but who takes it."""

from __future__ import annotations

import os
import subprocess
import sys

from router.common import priority

LIMITED = """
import os, sys
from router.common import priority
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)  # nobody: without CAP_SYS_NICE
print(priority.ORIGINAL, priority.take(-20), os.getpriority(os.PRIO_PROCESS, 0), priority.take(5))
"""


def test_what_is_not_allowed_changes_nothing() -> None:
    command = f"ulimit -e 0; exec {sys.executable} -c '{LIMITED}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "0", "0"]


def test_the_lowest_is_found_without_taking_it() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert -20 <= priority.lowest() <= before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_it_is_never_made_higher() -> None:
    assert priority.take(19) == os.getpriority(os.PRIO_PROCESS, 0) < 19
