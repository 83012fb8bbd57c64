"""The nice value of the supervisor and of a starved router: when it is wanted, and taken where it is allowed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from router.common import priority
from router.common.priority import HOLD_S, RightOfWay

LIMITED = """
import os, sys
from router.common import priority
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)  # nobody: without CAP_SYS_NICE
print(priority.ORIGINAL, priority.take(-20), os.getpriority(os.PRIO_PROCESS, 0), priority.take(5))
"""
STARVED = """
import os, threading, time
from router.common import priority
threading.Thread(target=lambda: time.sleep(600), daemon=True).start()
class Rule:
    wanted = lambda self, now, ran, waited: now < 2
one = priority.Starvation(-3)
one._rule = Rule()
threads = lambda: sorted({os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")})
for now in range(4):
    print(one.look(now), threads())
"""


@pytest.mark.parametrize(
    ("ran", "waited", "first"),
    [
        (0.9, 0.1, False),
        (0.3, 0.7, False),  # busy, as with a few others on two cores
        (0.02, 0.95, True),  # one of sixty
        (0.001, 0.05, False),  # it has hardly anything to do
    ],
)
def test_it_comes_first_only_where_it_is_starved(ran: float, waited: float, first: bool) -> None:
    rule = RightOfWay()
    assert not rule.wanted(100.0, 50.0, 10.0)
    assert rule.wanted(101.0, 50.0 + ran, 10.0 + waited) is first


def test_it_comes_first_for_a_while_and_longer_where_it_is_starved_all_the_same() -> None:
    rule = RightOfWay()
    rule.wanted(0.0, 0.0, 0.0)
    assert rule.wanted(1.0, 0.01, 0.99)
    assert rule.wanted(HOLD_S, 10.0, 1.0)
    assert not rule.wanted(HOLD_S + 1, 11.0, 1.0)
    assert rule.wanted(HOLD_S + 2, 11.01, 1.99)
    assert rule.wanted(HOLD_S + 3, 11.02, 2.98)
    assert rule.wanted(2 * HOLD_S + 2, 20.0, 3.0)


def test_all_threads_come_first_and_wait_their_turn_again() -> None:
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, check=True)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    first = max(-3, priority.lowest())
    changed = ["True", "None", "False", "None"] if first < ours else ["None"] * 4
    assert done.stdout.splitlines() == [
        f"{change} [{nice}]" for change, nice in zip(changed, (first, first, ours, ours), strict=True)
    ]


def test_what_is_not_allowed_changes_nothing() -> None:
    command = f"ulimit -e 0; exec {sys.executable} -c '{LIMITED}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(os.getpriority(os.PRIO_PROCESS, 0))] * 4


def test_the_lowest_is_found_without_taking_it() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert -20 <= priority.lowest() <= before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_it_is_never_made_higher() -> None:
    assert priority.take(19) == os.getpriority(os.PRIO_PROCESS, 0) < 19
