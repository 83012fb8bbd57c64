"""The progress of a worker's replacement that an operator wanted, and the outcome of the last one, for the status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from farm.control import RUNNING


class LastReplacement:
    """The last one that was begun."""

    def __init__(self) -> None:
        self._began = 0.0
        self._old = 0
        self._last: dict[str, Any] | None = None

    @property
    def under_way(self) -> str:
        """Name of the worker that is being replaced; "" if none is."""
        last = self._last
        return f"worker[{last['worker']}]" if last is not None and last["outcome"] == RUNNING else ""

    def fields(self, connections: Mapping[int, int]) -> dict[str, Any] | None:
        """How far it is, or how it ended; None: there was none. connections: of workers, by their pid."""
        if self._last is None or not self._old:
            return self._last
        return {**self._last, "left": connections.get(self._old)}

    def began(self, worker: int, action: str) -> None:
        """One begins."""
        number = 1 if self._last is None else self._last["number"] + 1
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._began, self._old = time.monotonic(), 0
        self._last = {"number": number, "action": action, "worker": worker, "when": when}
        self._last |= {"outcome": RUNNING, "why": "", "step": "starting another process"}

    def letting_go(self, old: int) -> None:
        """The new process has the place; the old one, by its pid, lets its devices go."""
        assert self._last is not None
        self._old = old
        self._last["step"] = "letting its devices go"

    def ended(self, outcome: str, why: str = "") -> None:
        """Its outcome."""
        assert self._last is not None
        self._last.pop("step", None)
        self._old = 0
        self._last |= {"outcome": outcome, "why": why, "seconds": round(time.monotonic() - self._began, 1)}
