"""The farm that a run is made against."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.farm_process import Farm, attach, dialects_off, started
from bench.interrupt import Interrupt
from bench.store_servers import servers
from bench.store_servers.choices import CHOICES, DEFAULT


@dataclass(frozen=True, slots=True)
class Target:
    """Which farm: one that runs (`url`, and `admin` for its status, with the token in `token_file`), or one started for
    the run with this `store`, see `bench.store_servers.choices`."""

    url: str = ""
    admin: str = ""
    workers: int = 2
    store: str = DEFAULT
    settings: tuple[str, ...] = ()
    token_file: Path | None = None

    def open(self, stack: ExitStack, interrupt: Interrupt, spoken: str) -> Farm:
        """Reach it, or start it until the stack is closed. spoken: the dialect of the run.

        Raises:
          BenchError: it is not there, did not come up, or has a store that can't keep what this dialect needs.
        """
        if self.url:
            farm = attach(self.url, self.admin, self.token_file)
            if (status := farm.status()) is not None and status.python:
                farm.settings["python"] = status.python  # not ours
            return farm
        choice = CHOICES[self.store]
        store = stack.enter_context(servers.started(choice, interrupt)) if choice.program else None
        settings = (*(store.settings if store is not None else ()), *self.settings)
        off = dialects_off(choice.kind, settings)
        if f"dialects.{spoken}=false" in off:
            raise BenchError(f"{choice.title} can't keep what {spoken} needs")
        farm = stack.enter_context(started(self.workers, choice.kind, interrupt, (*off, *settings)))
        farm.store = store
        return farm
