"""The farm that a run is made against."""

from contextlib import ExitStack
from dataclasses import dataclass

from bench.farm_process import Farm, attach, started
from bench.interrupt import Interrupt


@dataclass(frozen=True, slots=True)
class Target:
    """Which farm: one that runs (`url`, and `admin` for its status), or one started for the run."""

    url: str = ""
    admin: str = ""
    workers: int = 2
    store: str = "sqlite"
    settings: tuple[str, ...] = ()

    def open(self, stack: ExitStack, interrupt: Interrupt) -> Farm:
        """Reach it, or start it until the stack is closed.

        Raises:
          BenchError: it is not there, or did not come up.
        """
        if self.url:
            farm = attach(self.url, self.admin)
            if (status := farm.status()) is not None and status.python:
                farm.settings["python"] = status.python  # not ours
            return farm
        return stack.enter_context(started(self.workers, self.store, interrupt, self.settings))
