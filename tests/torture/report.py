"""What a run shows: figures, and for each violation what was seen around it."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from support.farm_fixture import Farm

from torture.checker import Violation
from torture.history import History
from torture.world import World

_LOG_LINES: Final = 20_000
_AROUND_S: Final = 4.0
_NEAR_S: Final = 30.0
_SHOWN: Final = 80
_REST: Final = 500


class Log:
    """The logs of all hosts, each line with the time it was read at: a farm's own clock may be wrong."""

    def __init__(self, world: World, farms: Mapping[str, Farm]) -> None:
        """farms: by what their lines begin with."""
        self._world = world
        self._farms = farms
        self._offsets = dict.fromkeys(farms, 0)
        self.lines: deque[tuple[float, str]] = deque(maxlen=_LOG_LINES)

    async def run(self) -> None:
        """For ever."""
        while True:
            self.read()
            await asyncio.sleep(0.1)

    def read(self) -> None:
        """What is new. A stack trace is a violation, whatever was done to the farm."""
        for name, farm in self._farms.items():
            if farm.log_file.exists():
                self._read(name, farm)

    def _read(self, name: str, farm: Farm) -> None:
        with farm.log_file.open("rb") as log:
            log.seek(self._offsets[name])
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offsets[name] += len(whole)
        for raw in whole.decode(errors="replace").splitlines():
            self.lines.append((self._world.now(), name + raw))
            if "Traceback (most recent call last)" in raw or '"trace":' in raw:
                self._world.odd("stack trace", name + raw[:1500])

    def around(self, at: float) -> list[str]:
        """What was logged near a moment."""
        return [f"{when:9.3f} {line[:240]}" for when, line in self.lines if abs(when - at) < _AROUND_S]


def longest_gap(history: History, dialect: str) -> float:
    """The longest time without an accepted push, while there was at least one that was not accepted."""
    good = sorted(p.answered for p in history.pushes if p.dialect == dialect and p.accepted and p.answered is not None)
    bad = sorted(push.sent for push in history.pushes if push.dialect == dialect and not push.accepted)
    longest = 0.0
    for begin, end in pairwise(good):
        if end - begin > longest:
            first = bisect_left(bad, begin)
            if first < len(bad) and bad[first] <= end:
                longest = end - begin
    return longest


def table(history: History, dialects: Sequence[str], faults: Mapping[str, int]) -> str:
    """The figures of a run."""
    came = {(arrival.channel, arrival.number) for arrival in history.arrivals}
    lines = [
        ("dialect", "pushed", "accepted", "arrived", "replaced or gone", "refused", "no answer", "longest refusal")
    ]
    for dialect in dialects:
        pushes = [push for push in history.pushes if push.dialect == dialect]
        accepted = [push for push in pushes if push.accepted]
        arrived = sum((push.channel, push.number) in came for push in accepted)
        refused = sum(push.status == 503 for push in pushes)
        silent = sum(push.status == 0 for push in pushes)
        figures = (len(pushes), len(accepted), arrived, len(accepted) - arrived, refused, silent)
        lines.append((dialect, *map(str, figures), f"{longest_gap(history, dialect):.1f} s"))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    done = ", ".join(f"{name} {count}" for name, count in sorted(faults.items())) or "none"
    return "\n".join([*shown, f"connections: {len(history.connections)}", f"faults: {done}"])


def explain(violation: Violation, history: History, log: Log) -> str:
    """One violation, with the faults, pushes, arrivals and connections around it, and what the farm said then."""
    at = min(violation.at, max((line[0] for line in log.lines), default=0.0))
    traffic = [*_traffic(violation, at, history), *_connections(violation, at, history)]
    nearest = sorted(traffic, key=lambda one: abs(one[0] - at))[:_SHOWN]
    lines = [f"VIOLATION {violation.rule}: {violation.client} {violation.channel}: {violation.text}"]
    lines += [f"  {when:9.3f} {text}" for when, text in sorted([*_faults(at, history), *nearest])]
    lines += [f"  log {line}" for line in log.around(at)[-_SHOWN:]]
    return "\n".join(lines)


_Seen = list[tuple[float, str]]


def _faults(at: float, history: History) -> _Seen:
    near = [fault for fault in history.faults if fault.begin - _NEAR_S < at < fault.end + _NEAR_S]
    return [(fault.begin, f"fault {fault.kind} {fault.detail} until {fault.end:.3f}") for fault in near]


def _traffic(violation: Violation, at: float, history: History) -> _Seen:
    if not violation.channel:
        return []
    found: _Seen = []
    for push in history.pushes:
        if (push.client, push.channel) == (violation.client, violation.channel) and abs(push.sent - at) < _NEAR_S:
            answered = "never" if push.answered is None else f"{push.answered:.3f}"
            topic = f" topic {push.topic}" if push.topic else ""
            found.append((push.sent, f"push {push.number}{topic} TTL {push.ttl}: {push.status} at {answered}"))
    found += [(one.at, f"webhook {one.name}") for one in history.webhooks if one.channel == violation.channel]
    for arrival in history.arrivals:
        same = arrival.channel == violation.channel and violation.client in ("", arrival.client)
        if same and abs(arrival.at - at) < _NEAR_S:
            acks = f"acked {_time(arrival.acked)}, confirmed {_time(arrival.confirmed)}"
            where = f"at {arrival.client} on {arrival.connection}"
            found.append((arrival.at, f"arrival {arrival.number} {where}, {acks}"))
    return found


def _connections(violation: Violation, at: float, history: History) -> _Seen:
    found: _Seen = []
    for one in history.connections.values():
        if violation.client and one.client == violation.client and abs(one.opened - at) < 2 * _NEAR_S:
            end = f"ended {_time(one.ended)}, left {_time(one.left)} {one.how}"
            found.append((one.dialled, f"connection {one.number}, greeted {one.opened:.3f}, {end}"))
    return found


def _time(at: float | None) -> str:
    return "never" if at is None else f"{at:.3f}"


def chosen_first(violations: Sequence[Violation], most: int) -> tuple[list[Violation], list[Violation]]:
    """Those to be explained, some of every rule that was broken, and the others. Both in the order of time."""
    place: Counter[str] = Counter()
    ranked = []
    for violation in violations:
        place[violation.rule] += 1
        ranked.append((place[violation.rule], violation))
    chosen = [violation for _, violation in sorted(ranked, key=lambda pair: pair[0])]
    first, others = chosen[:most], chosen[most:]
    return sorted(first, key=_at), sorted(others, key=_at)


def _at(violation: Violation) -> float:
    return violation.at


def rest(violations: Sequence[Violation]) -> str:
    """Those for which there is no room, a line each, and how many of each rule."""
    lines = [f"  {one.at:9.3f} {one.rule}: {one.client} {one.channel}: {one.text}" for one in violations[:_REST]]
    counts = dict(Counter(violation.rule for violation in violations))
    return "\n".join([f"and {len(violations)} more: {counts}", *lines])
