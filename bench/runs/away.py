"""Devices that register and leave: what is pushed to them is stored, and must be there when they come back."""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.farm_process import Farm
from bench.load.reconnect import Backoff
from bench.load.samples import Pushes, account_returned, owed
from bench.progress import Progress
from bench.runs.collected import Setup
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers

STAY_AWAY: Final = Backoff(1e9, 1e9)
COME_BACK: Final = Backoff(0.2, 2.0, jitter=True)
SAMPLE: Final = 10_000
RETURNS_A_SECOND: Final = 2_000
LEAVE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1


@dataclass(slots=True)
class Away:
    """Devices that are registered and not connected. `devices`: their numbers; `runs`: what was pushed since they
    left, to whichever device."""

    users: VirtualUsers
    setup: Setup
    devices: range
    runs: list[Pushes] = field(default_factory=list)

    @classmethod
    def of(cls, processes: LoadProcesses, load: Load, farm: Farm, first: int, progress: Progress) -> "Away":
        """Bring them up, with the numbers from `first` on, and let them leave."""
        before = _connected(farm)
        users = VirtualUsers.of(processes, replace(load, backoff=STAY_AWAY), farm, first=first)
        setup = users.bring_up(progress, "setting up devices that leave")
        users.cut()
        users.collect()
        progress.step("waiting until they have left")
        deadline = time.monotonic() + LEAVE_SECONDS
        while _connected(farm) > before and time.monotonic() < deadline and not processes.interrupt.requested:
            processes.receive(LOOK_SECONDS)
        return cls(users, setup, range(first, first + load.devices))

    def bring_back(self, progress: Progress, grace: float, keeps_all: bool = False) -> dict[str, Any]:
        """Let those come back that were pushed to, or an even sample of them, and see what they get; for JSON. `grace`:
        s that they have for it once they are back; `keeps_all`: see `bench.load.samples.owed`."""
        users, channels = self.users, self.users.load.channels
        waiting = owed(self.runs, channels, self.devices, keeps_all)
        pushed_to = sorted({channel // channels for channel, _ in waiting})
        sample = pushed_to[:: -(-len(pushed_to) // SAMPLE) or 1]
        if users.processes.interrupt.requested:
            sample = []
        chosen = frozenset(sample)
        expected = sum(channel // channels in chosen for channel, _ in waiting)
        progress.step("bringing back devices that were away", len(sample))
        began = time.monotonic()
        users.bring_back(sample, len(sample) / RETURNS_A_SECOND, COME_BACK)
        self._wait(progress, sample=len(sample), expected=expected, grace=grace)
        seconds = time.monotonic() - began
        held = users.collect()
        deadline = time.monotonic() + grace
        while True:  # what came twice has been counted twice: something may still be missing
            returned = account_returned(
                self.runs, held.arrivals, channels=channels, devices=chosen, keeps_all=keeps_all
            )
            if not returned.missing or time.monotonic() > deadline or users.processes.interrupt.requested:
                break
            users.processes.receive(LOOK_SECONDS)
            held.add(users.collect())
        back = len(set(held.absences.back))
        return {
            "setup": self.setup.fields(),
            "devices": len(self.devices),
            "stored": len(waiting),
            "sample": len(sample),
            "back": back,
            "seconds": seconds,
            **returned.fields(),
            "strays": held.strays,
            "reassigned": held.reassigned,
            "return_failures": dict(held.return_failures),
            "clean": returned.clean and back == len(sample) and not held.strays and not held.reassigned,
        }

    def _wait(self, progress: Progress, *, sample: int, expected: int, grace: float) -> None:
        """Until they are back and have all of it, or the time is over."""
        users = self.users
        back = arrived = 0
        deadline = time.monotonic() + sample / RETURNS_A_SECOND + users.load.timeout
        while (back < sample or arrived < expected) and time.monotonic() < deadline:
            if users.processes.interrupt.requested:
                return
            users.processes.receive(LOOK_SECONDS)
            all_back = back >= sample
            arrived, back = users.count_anew("arrived"), users.count("back")
            if back >= sample and not all_back:
                deadline = time.monotonic() + grace
            progress.update(back, arrived, "updates/s")


def _connected(farm: Farm) -> int:
    status = farm.status()
    return sum(status.connections.values()) if status else 0
