"""The code of a farm under torture changes from an older release to ours and back."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from support import releases
from support.farm_fixture import ROOT, Farm, until

NO_OLDER: Final = "there is no --older"
RELOADS: Final = 0.8
"""How often it is tried by a reload, of all times."""
_OURS: Final = "ours"
_OLDER: Final = "the older one"
_TRIES: Final = 2
_RELOADED_S: Final = 180.0


def older_option(parser: argparse.ArgumentParser) -> None:
    """The commit of the older release, or ""."""
    text = "begin with its code, and change it to and fro; without COMMIT: %(const)s"
    parser.add_argument(
        "--older", metavar="COMMIT", type=_commit, default="", nargs="?", const=releases.OLDER, help=text
    )


def _commit(name: str) -> str:
    try:
        return releases.full_name(name) if name else ""
    except releases.NoHistoryError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Code:
    """Where the code of a farm is, and which release that is. It begins with the older one."""

    def __init__(self, farm: Farm, folder: Path, older: Path) -> None:
        """farm: not started yet. folder: for its code, to be made. older: the tree of the older release."""
        self._farm = farm
        self._place = releases.Place(folder)
        self._trees = {_OURS: ROOT, _OLDER: older}
        self._says_its_interface = (older / "farm/supervisor/interface.py").exists()
        self._of_supervisor: dict[int, str] = {}  # by its pid
        self._name = _OURS
        self._change()
        farm.root = self._place.path

    def _change(self) -> None:
        self._name = _OLDER if self._name == _OURS else _OURS
        self._place.put(self._trees[self._name])

    async def upgrade(self, by_reload: bool, restart: Callable[[], Awaitable[None]], odd: Callable[[str], None]) -> str:
        """Put the other release there and have the farm take it over: by a reload, or by a restart where its supervisor
        cannot run that code.

        odd: is told what must not be. Returns: what was done.
        """
        supervisor = self._of_supervisor.setdefault(self._farm.pid, self._name)
        await asyncio.to_thread(self._change)
        can = self._says_its_interface or supervisor == _OLDER or self._name == _OURS
        said = ""
        for _ in range(_TRIES if by_reload and can else 0):  # what is done to the farm at the same time may undo one
            try:
                last = await asyncio.to_thread(self._reloaded)
            except AssertionError as error:
                last = {"outcome": "no outcome", "why": str(error)}
            if last["outcome"] == "done":
                return f"{self._name}, by a reload"
            said = f"{last['outcome']}: {last['why']}"
        if said:
            odd(f"no reload to {self._name} was done; {said}")
        await restart()
        return f"{self._name}, by a restart" + (f" ({said})" if said else "")

    def _reloaded(self) -> dict[str, Any]:
        """Reload, whatever comes of it. Returns: `last_reload` of the status."""
        before = self._farm.status()["last_reload"]
        os.kill(self._farm.pid, signal.SIGHUP)

        def ended() -> dict[str, Any] | None:
            try:
                status = self._farm.status()
            except (OSError, ValueError):
                return None
            last: dict[str, Any] | None = status["last_reload"]
            return last if last != before and not status["reloading"] else None

        found = until(ended, "the reload has an outcome", _RELOADED_S)
        assert found is not None
        return found
