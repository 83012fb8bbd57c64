"""How subscribers and app servers speak in a run: a dialect whose events go to many subscribers, and its modes."""

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.load.dialect import Events, FanOut
from bench.machine import leftovers
from bench.machine.ports import free_ports
from bench.runs.load import Load, Way

MIXED: Final = "mixed"
"""Subscribers in all modes at once."""


@dataclass(frozen=True, slots=True)
class Speaking:
    """What subscribers and app servers speak. `modes`: those of the subscribers' load processes, in turn; empty where
    the dialect has none. `apps`: the file with the applications of a farm that runs. `ports`: of a farm that was
    started for the run, by mode."""

    fan_out: FanOut
    modes: tuple[str, ...] = ()
    apps: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, str]:
        """For JSON."""
        mode = MIXED if len(self.modes) > 1 else "".join(self.modes)
        return {"dialect": self.fan_out.name, **({"mode": mode} if mode else {})}

    def settings(self, stack: ExitStack, stored: int = 0) -> tuple["Speaking", tuple[str, ...]]:
        """The settings of a farm that is started for the run, whose files are there as long as the stack is open, and
        the same with its ports. `stored`: events of each channel that it has to keep."""
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=leftovers.name("apps-")))
        settings = self.fan_out.settings(Path(folder), stored)
        own = [mode for mode in self.modes if mode in self.fan_out.ports]
        ports = dict(zip(own, free_ports(len(own)), strict=True))
        settings += tuple(f"{self.fan_out.ports[mode]}={port}" for mode, port in ports.items())
        return replace(self, ports=ports), settings

    def subscribers(self, load: Load) -> tuple[Load, Events]:
        """The same load of subscribers, and where events go.

        Raises:
          BenchError: the applications' file has none.
        """
        prefix = f"bench-{time.time_ns():x}-"  # of this run alone: a farm that runs may have other subscribers
        try:
            events = self.fan_out.events(prefix, self.apps)
        except ValueError as error:
            raise BenchError(f"--apps {error}") from None
        ways = tuple(Way({**events.arguments, "mode": mode}, self.ports.get(mode, 0)) for mode in self.modes)
        return replace(load, protocol=self.fan_out.name, arguments=events.arguments, ways=ways), events
