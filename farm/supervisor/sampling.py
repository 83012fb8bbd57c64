"""What the history keeps of a status: levels as they are, counters as what they grow in a second. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from router.common.histogram import added, counts_in, quantile

Row = Mapping[str, Any]
Values = dict[tuple[str, str], float]

_LEVELS: Final = {
    "devices": ("workers", "connections"),
    "buffered": ("workers", "buffered"),
    "unconfirmed": ("workers", "link_unconfirmed"),
    "store_waiting": ("routers", "store_waiting"),
    "store_bytes": ("routers", "store_bytes"),
    "channels": ("routers", "channels"),
}
"""Of the whole farm: name to the rows and the number that is summed over them."""
_RATES: Final = {
    "connects": ("workers", "connects"),
    "disconnects": ("workers", "disconnects"),
    "setups_refused": ("workers", "setups_refused"),
    "updates": ("workers", "updates_sent"),
    "copies": ("workers", "events_sent"),
    "pushes": ("routers", "pushes"),
    "delivered": ("routers", "pushes_delivered"),
    "stored": ("routers", "pushes_stored"),
    "refused": ("routers", "pushes_refused"),
    "events": ("routers", "events"),
    "requests": ("routers", "http_requests"),
}
"""The same for counters."""
_TIMES: Final = {
    "delivery": ("routers", "push_delivered_seconds"),
    "commit": ("routers", "store_commit_seconds"),
    "hello": ("workers", "hello_seconds"),
}
"""The same for histograms; the name is followed by `_p50` or `_p99`."""
_SHARES: Final = {"p50": 0.5, "p99": 0.99}
_PROCESSES: Final = {"routers": ("router", "number"), "workers": ("worker", "shard")}


class Sampler:
    """Compares each status with the one before."""

    def __init__(self) -> None:
        self._before: float | None = None
        self._known: dict[int, Row] = {}  # by pid, what each process has counted

    def sample(self, status: Row, now: float) -> Values:
        """The values of this status, as `History.add` takes them: by process and name. A value that is not known, or
        cannot be before there is a second status, is left out. now: in s."""
        rows: dict[str, list[Row]] = {kind: [row for row in status[kind] if row["pid"]] for kind in _PROCESSES}
        found: Values = {("", name): _sum(rows[kind], number) for name, (kind, number) in _LEVELS.items()}
        for process, row in _named(status, rows):
            if "memory" in row:
                found[process, "memory"] = row["memory"]
        found["", "memory"] = sum(value for (process, name), value in found.items() if process and name == "memory")
        if self._before is not None and now > self._before:
            passed = now - self._before
            for name, (kind, number) in _RATES.items():
                found["", name] = sum(self._grown(row, number, passed) for row in rows[kind]) / passed
            for name, (kind, number) in _TIMES.items():
                taken = added((self._counted(row, number, passed) for row in rows[kind]), number)
                for label, share in _SHARES.items():
                    if (seconds := quantile(taken, share)) is not None:
                        found["", f"{name}_{label}"] = seconds
            for process, row in _named(status, rows):
                if "cpu" in row:
                    found[process, "cpu"] = self._grown(row, "cpu", passed) / passed
            found["", "cpu"] = sum(value for (process, name), value in found.items() if process and name == "cpu")
        everything = [status, *(row for of in rows.values() for row in of)]
        # What a row lacks for once, because a router is new, has not begun anew.
        self._known = {row["pid"]: {**self._known.get(row["pid"], {}), **row} for row in everything}
        self._before = now
        return found

    def _grown(self, row: Row, name: str, passed: float) -> float:
        """What a counter has grown since the status before; of a process that is new, all of it."""
        before = self._known.get(row["pid"])
        if name not in row or (before is None and row.get("running", row.get("age", 0.0)) > passed):
            return 0.0
        return max(0.0, float(row[name]) - float((before or {}).get(name, 0)))

    def _counted(self, row: Row, name: str, passed: float) -> Row:
        """The same of the buckets of a histogram, as numbers of a row."""
        if counts_in(row, name) is None:
            return {}
        return {key: self._grown(row, key, passed) for key in row if key.startswith(f"{name}_le_")}


def _named(status: Row, rows: Mapping[str, Iterable[Row]]) -> Iterable[tuple[str, Row]]:
    yield "supervisor", status
    for kind, (title, number) in _PROCESSES.items():
        for row in rows[kind]:
            yield f"{title} {row[number]}", row


def _sum(rows: Iterable[Row], name: str) -> float:
    return sum(float(row.get(name, 0)) for row in rows)
