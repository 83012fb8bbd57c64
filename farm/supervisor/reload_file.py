"""The progress of a reload, and the outcome of the last one: in memory for the status, and in
`<data.dir>/reload.json` for `farm reload`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Final

from farm.control import DONE, RELOAD_FILE, RUNNING
from router.common import logs

REFUSED: Final = "refused"
ROLLED_BACK: Final = "rolled back"
CUT_SHORT: Final = "cut short"
FAILED: Final = "failed"
OUTCOMES: Final = (DONE, REFUSED, ROLLED_BACK, CUT_SHORT, FAILED)


class ReloadFile:
    """The state of the last reload, in memory and in its file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RELOAD_FILE
        self._number = 0
        self._began = 0.0
        self.last: dict[str, Any] | None = None
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        """How many reloads of this supervisor have ended so."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)  # of another supervisor, which may have had our pid

    def began(self) -> None:
        """A reload has been requested."""
        self._number += 1
        self._began = time.monotonic()
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.last = {"supervisor": os.getpid(), "number": self._number, "when": when, "outcome": RUNNING, "why": ""}
        self.step("checking")

    def step(self, name: str) -> None:
        """Its current step."""
        self._write(step=name)

    def ended(self, outcome: str, why: str = "", needs_restart: list[str] | None = None) -> None:
        """Its outcome."""
        seconds = round(time.monotonic() - self._began, 1)
        assert self.last is not None
        self.last.pop("step", None)
        self.outcomes[outcome] += 1
        self._write(outcome=outcome, why=why, seconds=seconds, needs_restart=needs_restart or [])

    def refused(self, why: str) -> None:
        """One that was requested is not begun."""
        logs.error("reload.refused", why=why)
        self.began()
        self.ended(REFUSED, why)

    def _write(self, **fields: Any) -> None:
        assert self.last is not None
        self.last |= fields
        draft = self._path.with_name(f"{self._path.name}.new")
        try:
            draft.write_text(json.dumps(self.last))
            draft.replace(self._path)
        except OSError as error:
            logs.limited("reload.not_recorded", why=str(error), file=str(self._path))
