"""The figures of a storm: when devices were back, and what app servers saw meanwhile. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from bench.figures.percentiles import percentiles
from bench.load.samples import ACCEPTED, NO_ANSWER, Arrivals, Pushes
from bench.runs.collected import Absences
from bench.runs.delivery_checker import DeliveryChecker

SHARES: Final = (0.5, 0.95, 0.99, 1.0)
MOST_BINS: Final = 100
CURVE_POINTS: Final = 100


def returns(cut: int, devices: int, absences: Absences, checker: DeliveryChecker) -> dict[str, Any]:
    """How the devices came back. Seconds count from the cut; None where too few ever did."""
    last_back: dict[int, int] = {}
    attempts: Counter[int] = Counter()
    for device, time_, tries in zip(absences.back, absences.back_times, absences.attempts, strict=True):
        last_back[device] = max(time_, last_back.get(device, 0))
        attempts[tries] += 1
    gone = Counter(absences.gone)
    owed = checker.owed()
    last_gone: dict[int, int] = {}
    for device, time_ in zip(absences.gone, absences.gone_times, strict=True):
        last_gone[device] = max(time_, last_gone.get(device, 0))
    back = sorted((time_ - cut) / 1e6 for device, time_ in last_back.items() if time_ >= last_gone.get(device, 0))
    whole = sorted(
        (max(time_, checker.complete.get(device, 0)) - cut) / 1e6
        for device, time_ in last_back.items()
        if time_ >= last_gone.get(device, 0) and device not in owed
    )
    return {
        "cut_off": len(gone),
        "cut_again": sum(count > 1 for count in gone.values()),
        "back": len(back),
        "back_seconds": {_percent(share): at_share(back, share, devices) for share in SHARES},
        "whole_seconds": {_percent(share): at_share(whole, share, devices) for share in SHARES},
        "back_curve": curve(back, devices),
        "whole_curve": curve(whole, devices),
        "attempts": {str(tries): count for tries, count in sorted(attempts.items())},
        "attempts_mean": sum(tries * count for tries, count in attempts.items()) / max(1, attempts.total()),
    }


def _percent(share: float) -> str:
    return f"{share:.0%}"


def at_share(ordered: list[float], share: float, total: int) -> float | None:
    """The time by which this share of all had come, None if it never had."""
    rank = max(1, math.ceil(share * total))
    return ordered[rank - 1] if rank <= len(ordered) else None


def curve(ordered: list[float], total: int) -> list[tuple[float, float]]:
    """(seconds, share) at every hundredth of the total that was reached, from (0, 0)."""
    points = [(0.0, 0.0)]
    for step in range(1, CURVE_POINTS + 1):
        time_ = at_share(ordered, step / CURVE_POINTS, total)
        if time_ is None:
            break
        points.append((round(time_, 4), step / CURVE_POINTS))
    return points


Phases = Sequence[tuple[str, float]]
"""Names, each with the time at which it is over."""


def phases_of(cut: int, back: int, first: int | None = None) -> Phases:
    """Before the cut, until all were back (or the bench waited no longer), and after. first: when the first was back;
    until then they are `away`."""
    away = [] if first is None else [("away", float(first))]
    return [("before", float(cut)), *away, ("during", float(back)), ("after", math.inf)]


def _name(phases: Phases, time_: int) -> str:
    return next(name for name, end in phases if time_ < end)


def to_frame(arrivals: Arrivals, start: int, phases: Phases) -> dict[str, dict[str, float]]:
    """From the time that a push was due until its device had it, by the phase in which it was due, in ms."""
    times: dict[str, list[int]] = {name: [] for name, _ in phases}
    for version, time_ in zip(arrivals.versions, arrivals.times, strict=True):
        if version >= start:
            times[_name(phases, version)].append(time_ - version)
    return {name: percentiles(found, 0.001) for name, found in times.items()}


def to_answer(pushes: Pushes, phases: Phases) -> dict[str, dict[str, Any]]:
    """How pushes were answered, by the phase in which they were due."""
    answers: dict[str, list[tuple[int, int]]] = {name: [] for name, _ in phases}
    for version, status, time_ in zip(pushes.versions, pushes.statuses, pushes.times, strict=True):
        answers[_name(phases, version)].append((status, time_))
    return {name: _phase(found) for name, found in answers.items()}


def seen_by_app_servers(pushes: Pushes, start: int, cut: int, back: int) -> dict[str, Any]:
    """What app servers saw by phase, and by second."""
    return {"phases": to_answer(pushes, phases_of(cut, back)), "a_second": _bins(pushes, start, cut)}


def _phase(answers: list[tuple[int, int]]) -> dict[str, Any]:
    statuses = Counter(status for status, _ in answers)
    return {
        "pushes": len(answers),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "refused": sum(count for status, count in statuses.items() if status not in ACCEPTED and status != NO_ANSWER),
        "unanswered": statuses[NO_ANSWER],
        "to_response_ms": percentiles((time_ for status, time_ in answers if status != NO_ANSWER), 0.001),
    }


def _bins(pushes: Pushes, start: int, cut: int) -> dict[str, Any]:
    """Answers a second by status, in at most 100 bins of whole seconds; times in seconds from the cut."""
    answers = [
        (version + time_, status)
        for version, status, time_ in zip(pushes.versions, pushes.statuses, pushes.times, strict=True)
    ]
    if not answers:
        return {"width": 1, "seconds": [], "statuses": {}}
    last = max(time_ for time_, _ in answers)
    width = max(1, math.ceil((last - start) / 1e6 / (MOST_BINS - 2)))  # the first and the last are seldom whole
    first = math.floor((start - cut) / 1e6 / width)  # one bin begins with the cut
    count = math.floor((last - cut) / 1e6 / width) - first + 1
    rates: dict[int, list[float]] = {}
    for time_, status in answers:
        place = max(0, math.floor((time_ - cut) / 1e6 / width) - first)
        rates.setdefault(status, [0.0] * count)[place] += 1 / width
    return {
        "width": width,
        "seconds": [(number + first) * width for number in range(count)],
        "statuses": {str(status): [round(rate, 4) for rate in rates[status]] for status in sorted(rates)},
    }
