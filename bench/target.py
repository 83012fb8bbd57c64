"""The farm that a run is made against, and which of the machine's processes are its parts."""

from contextlib import ExitStack
from dataclasses import dataclass

from bench.farm_process import Farm, Status, attach, started
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
            return attach(self.url, self.admin)
        return stack.enter_context(started(self.workers, self.store, interrupt, self.settings))


def groups_of(farm: Farm, status: Status | None, load: dict[str, list[int]]) -> dict[str, list[int]]:
    """Pids by what they are; the farm's only where it says them."""
    groups: dict[str, list[int]] = {}
    if status is not None:
        groups["router"] = status.routers
        groups["workers"] = list(status.workers.values())
    if farm.supervisor is not None:
        groups["supervisor"] = [farm.supervisor]
    return groups | load
