"""What `farm top` shows of two statuses of a farm: levels, rates, latencies, and a row for each process. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from farm.supervisor.sampling import Sampler

Row = Mapping[str, Any]

SORTS: Final[Mapping[str, tuple[str, str]]] = {
    "p": ("process", "process"),
    "c": ("cpu", "CPU"),
    "m": ("memory", "memory"),
    "n": ("connections", "connections"),
    "r": ("rate", "messages"),
}
"""By key: what the processes are sorted by, and how that is called."""
_RATES: Final = {"workers": ("updates_sent", "events_sent"), "routers": ("pushes", "events")}
"""Counters whose growth is the rate of a process: what a worker sends to devices, what a router takes for them."""
_KINDS: Final = {"routers": ("router", "number"), "workers": ("worker", "shard")}


class TopView:
    """Compares each status with the one before."""

    def __init__(self) -> None:
        self._sampler = Sampler()
        self._counted: dict[int, float] = {}  # by pid
        self._when: float | None = None

    def look(self, status: Row, now: float) -> dict[str, Any]:
        """What is to be seen: `farm` (about all of it), `totals` by the names of the farm's history, `processes`, and
        `hosts` of a cluster. Rates and latencies are there from the second status on. now: in s.

        Raises: KeyError, TypeError or ValueError for what is no status of a farm.
        """
        sampled = self._sampler.sample(status, now)
        passed = 0.0 if self._when is None else now - self._when
        counted: dict[int, float] = {}
        processes = [self._process("supervisor", status, sampled, "up", None)]
        for kind, (title, number) in _KINDS.items():
            for row in status[kind]:
                rate = None
                if row["pid"]:
                    total = sum(float(row.get(name, 0)) for name in _RATES[kind])
                    counted[row["pid"]] = total
                    if passed > 0 and row["pid"] in self._counted:
                        rate = max(0.0, total - self._counted[row["pid"]]) / passed
                processes.append(self._process(f"{title} {row[number]}", row, sampled, row["state"], rate))
        self._counted, self._when = counted, now
        drain = status.get("drain")
        cluster = status.get("cluster") or {}
        return {
            "farm": {
                **{name: status[name] for name in ("status", "version", "uptime", "down")},
                "reloading": bool(status.get("reloading")),
                "drain": {name: drain.get(name) for name in ("phase", "left", "remaining_seconds")} if drain else None,
            },
            "totals": {name: value for (process, name), value in sampled.items() if not process},
            "processes": processes,
            "hosts": [
                {name: host.get(name) for name in ("name", "here", "devices", "workers", "routers")}
                for host in cluster.get("hosts", ())
            ],
        }

    def _process(
        self, name: str, row: Row, sampled: Mapping[tuple[str, str], float], state: str, rate: float | None
    ) -> dict[str, Any]:
        return {
            "process": name,
            "pid": row.get("pid"),
            "state": state,
            "cpu": sampled.get((name, "cpu")),
            "memory": sampled.get((name, "memory")),
            "connections": None if name == "supervisor" else row.get("connections", row.get("http_connections")),
            "rate": rate,
            "restarts": row.get("restarts"),
        }


def in_order(processes: Sequence[Row], key: str) -> list[Row]:
    """The rows of processes as a key of SORTS has them: numbers from the highest on, and by process as they stand."""
    name, _ = SORTS[key]
    if name == "process":
        return list(processes)
    of: Callable[[Row], float] = lambda row: -1.0 if row[name] is None else float(row[name])  # noqa: E731
    return sorted(processes, key=of, reverse=True)
