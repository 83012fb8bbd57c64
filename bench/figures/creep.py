"""What of a soak may creep: memory, descriptors and latency, each judged by its slope. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.figures import slope

MIB: Final = 1024 * 1024
STEP_MIB: Final = 1.0
"""Python takes memory from the kernel in arenas of this size: a process that grows by less shows nothing or a whole
step, wherever in the run that falls. Two processes seldom step together; the fit then moves by less."""
GROUPS: Final = ("router", "workers", "supervisor")
HOLDERS: Final = "workers"
"""The processes that hold the devices, each of which is a descriptor."""

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What each may grow by in an hour: MiB and descriptors of a group of processes, ms of a median and of a 99th
    percentile."""

    memory: float = 2.0
    descriptors: float = 10.0
    p50: float = 0.25
    p99: float = 2.5


def verdicts(samples: list[Sample], limits: Limits) -> dict[str, dict[str, Any]]:
    """`slope.judge` on everything that can creep and was sampled, by its name, with its `unit`. A sample in which
    something is unknown is left out for it.

    Descriptors are those beyond the connections: of the workers, less the devices that are connected at that moment.
    """
    found: dict[str, dict[str, Any]] = {}

    def add(
        name: str,
        unit: str,
        most: float,
        read: Callable[[Sample], float | None],
        step: float = 0.0,
        ratios: bool = False,
    ) -> None:
        known = [(sample["at"], value) for sample in samples if (value := read(sample)) is not None]
        if known:
            times, values = zip(*known, strict=True)
            found[name] = {"unit": unit, **slope.judge(times, values, most, step=step, ratios=ratios)}

    for group in GROUPS:
        add(f"memory, {group}", "MiB", limits.memory, _memory(group), step=STEP_MIB)
    for group in GROUPS:
        add(f"descriptors, {group}", "descriptors", limits.descriptors, _descriptors(group))
    for kind, name in (("to_frame_ms", "PUT to frame"), ("to_response_ms", "PUT to answer")):
        for point, most in (("p50", limits.p50), ("p99", limits.p99)):
            add(f"{name}, {point}", "ms", most, _latency(kind, point), ratios=True)
    return found


def grows(judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of what grows for sure."""
    return [name for name, verdict in judged.items() if verdict["verdict"] == slope.GROWS]


def _memory(group: str) -> Callable[[Sample], float | None]:
    return lambda sample: None if (held := sample["memory"].get(group)) is None else held / MIB


def _descriptors(group: str) -> Callable[[Sample], float | None]:
    def read(sample: Sample) -> float | None:
        count: int | None = sample["descriptors"].get(group)
        if count is None or group != HOLDERS:
            return count
        held: int | None = sample["connections"]
        return None if held is None else count - held

    return read


def _latency(kind: str, point: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample[kind].get(point)
