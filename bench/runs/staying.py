"""Devices that stay connected while others come back, and app servers that push to them: how much they suffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.progress import Progress
from bench.runs.app_servers import Outcome, PushPlan
from bench.runs.collected import Held
from bench.runs.delivery_checker import DeliveryChecker
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.storm_figures import Phases, to_answer, to_frame
from bench.runs.traffic import Traffic
from bench.runs.virtual_users import VirtualUsers


@dataclass(slots=True)
class Staying:
    """In processes of their own, so that nothing that those which come back make their processes do delays them."""

    users: VirtualUsers
    traffic: Traffic
    devices: int
    rate: float
    sent: Outcome = field(default_factory=Outcome)

    @classmethod
    def start(
        cls, processes: LoadProcesses, load: Load, farm: Farm, devices: int, plan: PushPlan, progress: Progress
    ) -> Staying:
        """Connect them. load: of the others; devices: how many stay.

        Raises:
          BenchError: not all of them could be set up.
        """
        mine = replace(load, devices=devices, processes=0, endpoints_every=1)
        users = VirtualUsers.of(processes, mine, farm, first=load.devices)
        setup = users.bring_up(progress, "setting up devices that stay")
        if setup.ready < devices:
            raise BenchError(f"{devices - setup.ready} of the devices that stay could not be set up ({setup.why})")
        return cls(users, Traffic(processes, setup, plan), devices, plan.rate)

    def go(self) -> None:
        """Begin to push to them."""
        self.users.collect()
        self.traffic.go(self.rate)

    def end(self) -> None:
        """Push no more, and wait for the last answers."""
        self.sent = self.traffic.end()

    def load(self) -> Mapping[str, list[int]]:
        """Its load processes, by what they are."""
        return {
            "load devices": [child.pid for child in self.users.children],
            "load pushers": [child.pid for child in self.traffic.children],
        }

    def fields(self, start: int, phases: Phases, checker: DeliveryChecker, held: Held) -> dict[str, Any]:
        """For JSON. checker, held: of what they got."""
        frames = to_frame(held.arrivals, start, phases)
        return {
            "devices": self.devices,
            "connections_lost": len(held.absences.gone),
            "phases": {
                name: {**phase, "to_frame_ms": frames[name]}
                for name, phase in to_answer(self.sent.pushes, phases).items()
            },
            "deliveries": checker.fields(),
            "clean": checker.clean and not held.absences.gone,
        }
