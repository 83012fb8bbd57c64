"""The figures of a comparison, and how they relate to those of the farm. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.machine.usage import Usage
from bench.runs.collected import Setup
from bench.runs.deliveries import clean as delivered

FIGURES: Final = (
    "memory_a_connection",
    "setup_rate",
    "setup_cpu_a_1000",
    "push_rate",
    "push_p50_ms",
    "push_p99_ms",
    "push_cpu_a_1000",
    "fanout_rate",
    "fanout_p50_ms",
    "fanout_p99_ms",
    "fanout_cpu_a_million",
)
"""What is set in relation to the farm."""
KEPT_OF_RUN: Final = (
    *("seconds", "events", "pushes", "delivered", "lost", "undelivered", "duplicates", "unexpected", "refused"),
    *("unanswered", "strays", "clean", "held", "drops", "limit"),
)


def figures(setup: Setup, usage: Usage, base: int, held: int, pushed: dict[str, Any] | None) -> dict[str, float | None]:
    """The figures of a round: memory in bytes, rates a second, times in ms, CPU in s for 1000 events, and how many
    cores the server used while that was measured. Those of pushing are None where nothing was pushed."""
    times = setup.fields()
    cpu = sum(use.cpu for use in usage.uses if use.group == "server")
    found: dict[str, float | None] = {
        "ready": setup.ready,
        "memory_base": base,
        "memory_a_connection": (held - base) / setup.ready if setup.ready else None,
        "setup_rate": times["rate"] or None,
        "setup_p50_ms": times["time_ms"].get("p50"),
        "setup_p99_ms": times["time_ms"].get("p99"),
        "setup_cpu_a_1000": cpu / setup.ready * 1000 if setup.ready else None,
        "setup_cores": cpu / usage.seconds,
    }
    push = pushed if pushed is not None and pushed["delivered"] else None
    cpu = sum(group["cpu_seconds"] for name, group in _groups(push).items() if not name.startswith("load"))
    return found | {
        "push_rate": push["notifications_a_second"] if push else None,
        "push_p50_ms": push["to_frame_ms"].get("p50") if push else None,
        "push_p99_ms": push["to_frame_ms"].get("p99") if push else None,
        "push_cpu_a_1000": cpu / push["pushes"] * 1000 if push else None,
        "push_cores": cpu / push["seconds"] if push else None,
    }


def fanout_figures(found: dict[str, Any]) -> dict[str, float | None]:
    """The figures of a fan-out: deliveries a second, ms to the last subscriber, CPU seconds of the server for a
    million deliveries; None where nothing arrived."""
    run = found["run"] if found["run"] is not None and found["run"]["delivered"] else None
    return {
        "fanout_rate": run["deliveries_a_second"] if run else None,
        "fanout_p50_ms": run["to_last_ms"].get("p50") if run else None,
        "fanout_p99_ms": run["to_last_ms"].get("p99") if run else None,
        "fanout_cpu_a_million": run["cpu_a_million"]["server"] if run else None,
    }


def _groups(pushed: dict[str, Any] | None) -> dict[str, Any]:
    return dict(pushed["usage"]["groups"]) if pushed else {}


def summary(round_: dict[str, Any]) -> dict[str, Any]:
    """What a result keeps of a round, beside its figures: whether all came up and arrived, and which processes used the
    cores."""
    fanout = round_.get("fanout")
    return round_ | {
        "setup": _setup(round_["setup"]),
        "setup_usage": _cores(round_["setup_usage"]),
        "push": _summary(round_["push"]),
        **({"fanout": fanout | {"setup": _setup(fanout["setup"]), "run": _summary(fanout["run"])}} if fanout else {}),
    }


def _setup(setup: dict[str, Any]) -> dict[str, Any]:
    return {name: setup[name] for name in ("wanted", "ready", "failures")}


def _summary(run: dict[str, Any] | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {name: run[name] for name in KEPT_OF_RUN if name in run} | {"usage": _cores(run["usage"])}


def _cores(usage: dict[str, Any]) -> dict[str, Any]:
    groups = {name: {"cpu_seconds": group["cpu_seconds"]} for name, group in usage["groups"].items()}
    return {name: usage[name] for name in ("machine_busy", "cores_with_others")} | {"groups": groups}


def medians(rounds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The median of each figure over the rounds that have it."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for round_ in rounds for name in round_):
        values = [value for round_ in rounds if (value := round_.get(name)) is not None]
        found[name] = statistics.median(values) if values else None
    return found


def ratios(figures: Mapping[str, float | None], reference: Mapping[str, float | None]) -> dict[str, float | None]:
    """Each of `FIGURES` over that of the reference; None where one of the two is not known, or the reference has
    nothing to divide by."""
    found: dict[str, float | None] = {}
    for name in FIGURES:
        mine, other = figures.get(name), reference.get(name)
        found[name] = mine / other if mine is not None and other is not None and other > 0 else None
    return found


def clean(server: dict[str, Any]) -> bool:
    """Whether a server of the document was measured, and nothing failed in it."""
    return bool(server["rounds"]) and all(
        round_["setup"]["ready"] == server["devices"]
        and round_["push"] is not None
        and round_["push"]["clean"]
        and round_["push"]["delivered"]
        and not round_["push"]["drops"]
        and _fanned_out(round_.get("fanout"))
        and all(_replayed(one) for one in round_.get("replays", {}).values())
        for round_ in server["rounds"]
    )


def _replayed(found: dict[str, Any]) -> bool:
    """Whether all subscribers came up, came back, and got everything once."""
    return bool(found.get("clean") and found["held"] == found["setup"]["wanted"])


def _fanned_out(found: dict[str, Any] | None) -> bool:
    """Whether all subscribers came up and got all, where that was asked for."""
    if found is None:
        return True
    up = found["setup"]["ready"] == found["setup"]["wanted"]
    return up and found["run"] is not None and delivered(found["run"])
