"""Devices that come in waves: of a ramp to a farm's limit, or of one figure."""

import math
from dataclasses import replace
from typing import Any

from bench.farm_process import Farm
from bench.machine import procfs
from bench.progress import Progress
from bench.runs.collected import Setup
from bench.runs.load import DEVICES_A_PROCESS, Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.ramp import Watch, Wave
from bench.runs.virtual_users import VirtualUsers


class Waves:
    """Devices that come in waves, all of them held until the end. `setup`: of all waves together; `seconds`: that they
    took, without what was between them."""

    def __init__(self, processes: LoadProcesses, farm: Farm, load: Load) -> None:
        self.load = load
        self.setup = Setup(0)
        self.seconds = 0.0
        self._processes, self._farm = processes, farm
        self._users: VirtualUsers | None = None

    @property
    def users(self) -> VirtualUsers:
        """Its load processes; there are some after the first wave."""
        assert self._users is not None
        return self._users

    def setup_fields(self) -> dict[str, Any]:
        """`setup` for JSON; rates are of the waves alone."""
        fields = self.setup.fields()
        rate = self.setup.ready / self.seconds if self.seconds else 0.0
        return fields | {"seconds": self.seconds, "rate": rate}

    def count(self, what: str) -> int:
        """The sum of a counter over the load processes."""
        return self._users.count(what) if self._users is not None else 0

    def grow(self, size: Wave, progress: Progress, title: str, watch: Watch) -> Setup:
        """Bring up one wave more."""
        devices = size.devices
        watch.wave(devices)
        if self._users is None:
            processes = min(devices, max(math.ceil(devices / DEVICES_A_PROCESS), procfs.cores()))
            load = replace(self.load, devices=devices, processes=processes)
            self._users = VirtualUsers.of(self._processes, load, self._farm)
        else:
            self._users.grow(devices)
        self._users.load = replace(self._users.load, rate=size.rate)
        wave = self._users.bring_up(progress, title, watch.look)
        self.seconds += max(wave.completions, default=wave.started) - wave.started
        self.setup.started = self.setup.started or wave.started
        self.setup.wanted += wave.wanted
        self.setup.ready += wave.ready
        self.setup.failures.update(wave.failures)
        self.setup.durations.extend(wave.durations)
        self.setup.completions.extend(wave.completions)
        self.setup.channels.extend(wave.channels)
        self.setup.endpoints.extend(wave.endpoints)
        return wave
