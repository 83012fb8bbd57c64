"""What must hold besides where a farm has several hosts, and the times that a run on them shows."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import quantiles
from typing import Final

from torture.checker import Index, Violation
from torture.history import ENDED, LINK, STORE, WIRE, Connection, Fault, History, Push

_JUST_S: Final = 1.0
"""A connection whose end was read so long before a fault is said to have begun was ended by it."""
_AFTER_S: Final = 5.0
"""So long after a fault its devices may still be let go."""
_KERNEL_S: Final = 45.0
"""A balancer notices within this time that a connection leads nowhere: see deploy/haproxy-cluster.cfg."""
_WINDOW_S: Final = 3.0
_SOON_S: Final = 1.0
_ENOUGH: Final = 0.95
_FEW: Final = 10


def devices_stay(index: Index) -> Iterator[Violation]:
    """A device keeps its connection, whatever becomes of other hosts than its own and of the store.

    One that comes with a position is accepted before what it has missed is read, and let go if that cannot be. So it is
    when its worker has a new link."""
    for one in index.history.connections.values():
        if one.how != ENDED or not one.host or one.ended is None or one.left is not None:
            continue
        if one.client in index.history.follows and (
            index.touched(STORE, one.opened - _JUST_S, one.opened + _JUST_S)
            or index.touched(LINK, one.ended - _AFTER_S, one.ended)
        ):
            continue
        if not any(_may_end(fault, one) for fault in index.history.faults):
            text = f"connection {one.number} to host {one.host} was ended, and nothing was wrong with that host"
            yield Violation("cut off", text, one.ended, one.client)


def _may_end(fault: Fault, one: Connection) -> bool:
    assert one.ended is not None
    after = _KERNEL_S if WIRE in fault.touches else _AFTER_S
    return one.host in fault.hosts and fault.begin - _JUST_S < one.ended < fault.end + after


def _blamed(history: History, one: Connection) -> Fault | None:
    """The last fault that may have ended a connection."""
    possible = [fault for fault in history.faults if _may_end(fault, one)]
    return max(possible, key=lambda fault: fault.begin, default=None)


def until_served(history: History, fault: Fault, owner: Callable[[Push], int | None]) -> float | None:
    """Seconds from a loss of routers until 95 of 100 pushes to their partitions were answered 2xx again, each within a
    second.

    None: too few were sent to say."""
    of_them = (push for push in history.pushes if push.sent >= fault.begin and owner(push) in fault.routers)
    sent = sorted((push.sent, _soon(push)) for push in of_them)
    times = [at for at, _ in sent]
    for number, (at, good) in enumerate(sent):
        window = [good for _, good in sent[number : bisect_left(times, at + _WINDOW_S)]]
        if good and len(window) >= _FEW and sum(window) >= _ENOUGH * len(window):
            return at - fault.begin
    return None


def _soon(push: Push) -> bool:
    return push.accepted and push.answered is not None and push.answered < push.sent + _SOON_S


def until_back(history: History, fault: Fault) -> list[float]:
    """Seconds from a fault until each device that it had cut off was connected again, in order."""
    later: dict[str, list[float]] = defaultdict(list)
    for one in history.connections.values():
        later[one.client].append(one.opened)
    found = []
    for one in history.connections.values():
        if one.how == ENDED and one.ended is not None and _blamed(history, one) is fault:
            after = [opened for opened in later[one.client] if opened > one.ended]
            if after:
                found.append(min(after) - fault.begin)
    return sorted(found)


def times(history: History, owner: Callable[[Push], int | None]) -> str:
    """A line for each loss of a router or a host."""
    lines = []
    for fault in history.faults:
        if not fault.routers and not fault.hosts:
            continue
        served = until_served(history, fault, owner) if fault.routers else None
        back = until_back(history, fault)
        said = [] if served is None else [f"95 % of pushes to routers {_numbers(fault)} 2xx again after {served:.1f} s"]
        if len(back) > 1:
            median, most = (quantiles(back, n=20, method="inclusive")[part] for part in (9, 18))
            said.append(f"{len(back)} devices back after {median:.1f} s (95 %: {most:.1f}, all: {back[-1]:.1f})")
        if said:
            lines.append(f"{fault.begin:7.1f} s  {fault.kind} {fault.detail}: {'; '.join(said)}")
    return "\n".join(lines)


def _numbers(fault: Fault) -> str:
    return ", ".join(map(str, sorted(fault.routers)))
