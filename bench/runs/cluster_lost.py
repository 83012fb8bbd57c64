"""A host of a cluster is killed while app servers push on through the others: when its routers are elsewhere, when
pushes to them are accepted again, and when its devices are back with what they missed."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.cluster_process import Cluster
from bench.load.samples import ACCEPTED, Pushes
from bench.progress import Progress
from bench.runs.app_servers import Outcome, PushPlan
from bench.runs.collected import Held, Setup
from bench.runs.delivery_checker import DeliveryChecker
from bench.runs.load_processes import LoadProcesses
from bench.runs.storm_figures import phases_of, returns, seen_by_app_servers, to_answer
from bench.runs.traffic import Traffic
from bench.runs.virtual_users import VirtualUsers

LOOK_SECONDS: Final = 0.05
COUNT_SECONDS: Final = 0.5
BIN_SECONDS: Final = 0.25
PROMPT_SECONDS: Final = 0.5
SHARES: Final = (0.95, 1.0)
WAITING_SECONDS: Final = 6.0
"""A push to a lost router has one connection for so long at most: redis.lease, and a router's start."""
AGAIN_SECONDS: Final = 1.0
"""All is well again when for so long nothing was missing."""


@dataclass(slots=True)
class Lost:
    """The last host is the one that is killed."""

    cluster: Cluster
    processes: LoadProcesses
    users: VirtualUsers
    setup: Setup
    pushes: PushPlan
    progress: Progress

    def measure(self, rate: float, calm: float, limit: float, grace: float) -> dict[str, Any]:
        """Kill it, and see all of it through; for JSON. Seconds count from the kill."""
        cluster, users = self.cluster, self.users
        victim = cluster.living[-1]
        routers = {number for number, host in cluster.places().items() if host == victim}
        survivors = cluster.routers([number for number in cluster.living if number != victim])
        # what waits for the lost routers has to leave connections to what goes to the others
        connections = max(self.pushes.connections, math.ceil(rate * WAITING_SECONDS))
        plan = replace(self.pushes, rate=rate, spread=survivors, half=False, connections=connections)
        traffic = Traffic(self.processes, self.setup, plan)
        users.collect()
        start = _now()
        traffic.go(rate)
        self._let_pass(traffic, calm, "pushing before a host is killed")
        devices = users.count_anew("ready")
        cut = _now()
        cluster.kill(victim)
        placed = self._wait(traffic, routers, devices, limit)
        end = _now()
        self._let_pass(traffic, calm, "pushing after that")
        sent = traffic.end()
        traffic.dismiss()
        checker, held = self._checked(sent, start, grace)
        partitions = dict(zip(self.setup.channels, self.setup.partitions, strict=False))
        lost, others = split(sent.pushes, partitions, routers, cluster.numbers)
        gone = len(set(held.absences.gone))
        phases = phases_of(cut, end)
        return {
            "devices": devices,
            "routers": len(routers),
            "rate": rate,
            "placed_seconds": max(placed.values()) if len(placed) == len(routers) and placed else None,
            "accepted_seconds": accepted(lost, cut),
            "others_accepted_seconds": accepted(others, cut),
            "answers": {"lost": to_answer(lost, phases), "others": to_answer(others, phases)},
            **returns(cut, gone, held.absences, checker),
            "pushes": seen_by_app_servers(lost, start, cut, end),
            "held": held.devices,
            "drops": dict(held.drops),
            "attempt_failures": dict(held.return_failures),
            "reassigned": held.reassigned,
            "strays": held.strays,
            "errors": dict(sent.errors),
            "deliveries": checker.fields(),
            "clean": checker.clean and not held.strays and not held.reassigned and held.devices >= devices,
        }

    def _let_pass(self, traffic: Traffic, seconds: float, title: str) -> None:
        self.progress.step(title, seconds)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self.processes.interrupt.requested:
            traffic.receive(min(COUNT_SECONDS, left))

    def _wait(self, traffic: Traffic, routers: set[int], devices: int, limit: float) -> dict[int, float]:
        """Until the routers are on other hosts, and all devices connected. Returns: when each router was."""
        self.progress.step("a host was killed: waiting for its routers and devices", devices)
        began = time.monotonic()
        placed: dict[int, float] = {}
        counted = well = 0.0
        ready = left = False
        while (now := time.monotonic() - began) < limit and not self.processes.interrupt.requested:
            traffic.receive(LOOK_SECONDS)
            here = self.cluster.places()
            for number in routers & here.keys():
                placed.setdefault(number, now)
            if now - counted >= COUNT_SECONDS:
                counted = now
                connected, away = self.users.count_anew("ready"), self.users.count("away")
                left = left or away > 0 or connected < devices or self.users.count("back") > 0
                ready = left and not away and connected >= devices
                self.progress.update(connected, note=f"{away:,} away, {len(placed)} of {len(routers)} routers back")
            if not (ready and len(placed) == len(routers)):
                well = now
            elif now - well > AGAIN_SECONDS:
                break
        return placed

    def _checked(self, sent: Outcome, start: int, grace: float) -> tuple[DeliveryChecker, Held]:
        """Collect until everything accepted is accounted for, or has had its time."""
        self.progress.step("waiting for the last to arrive")
        checker = DeliveryChecker(self.users.load.channels, grace, since=start)
        held = self.users.collect()
        checker.absences(held.absences)
        checker.pushed(sent.pushes)
        checker.arrived(held.arrivals)
        checker.settle(_now())
        deadline = time.monotonic() + grace + 1
        while checker.open and time.monotonic() < deadline and not self.processes.interrupt.requested:
            self.processes.receive(COUNT_SECONDS)
            more = self.users.collect()
            checker.absences(more.absences)
            checker.arrived(more.arrivals)
            checker.settle(_now())
            held.add(more)
        return checker, held


def split(pushes: Pushes, partitions: Mapping[int, int], lost: Iterable[int], routers: int) -> tuple[Pushes, Pushes]:
    """Those to partitions of the routers that were lost, of so many, and the others."""
    found = Pushes(), Pushes()
    lost = frozenset(lost)
    for row in zip(pushes.channels, pushes.versions, pushes.statuses, pushes.times, strict=True):
        one = found[partitions.get(row[0], -1) % routers not in lost]
        one.channels.append(row[0])
        one.versions.append(row[1])
        one.statuses.append(row[2])
        one.times.append(row[3])
    return found


def accepted(pushes: Pushes, cut: int) -> dict[str, float | None]:
    """When pushes are accepted again, in seconds from the cut. `first`: the first that was due behind it was answered;
    of each share: from then on so many of those due in each quarter of a second are accepted within half of one, as
    they are where nothing is lost; None: never. What waits for a router that is lost may be accepted, but late."""
    due = [
        ((version - cut) / 1e6, time_ / 1e6, status in ACCEPTED)
        for version, status, time_ in zip(pushes.versions, pushes.statuses, pushes.times, strict=True)
        if version >= cut
    ]
    found: dict[str, float | None] = {"first": min((at + took for at, took, good in due if good), default=None)}
    total, good = Counter[int](), Counter[int]()
    for at, took, well in due:
        total[math.floor(at / BIN_SECONDS)] += 1
        good[math.floor(at / BIN_SECONDS)] += well and took < PROMPT_SECONDS
    for share in SHARES:
        bad = [place for place, count in total.items() if good[place] < share * count]
        after = max(bad) + 1 if bad else 0
        found[f"{share:.0%}"] = after * BIN_SECONDS if any(place >= after for place in total) else None
    return found


def _now() -> int:
    return time.monotonic_ns() // 1000
