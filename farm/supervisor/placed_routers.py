"""The routers that are placed on this host of a cluster: their processes start, and end in a task each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from farm.settings import FarmOptions
from farm.supervisor.running_farm import RunningFarm
from farm.supervisor.slot import ROUTER_STOP_S
from farm.supervisor.status_links import Answers
from router.cluster.membership import Duties, Mine, Placement
from router.common import logs
from router.common.listener import ListenError
from router.common.settings import Listen

_STOP_S: Final = 0.3
"""For a router that is on another host by now: its store refuses it already."""
_DEATHS: Final = 5
"""A router that has died so often before it served does not run here."""


class PlacedRouters:
    """Those of one host. changed: called when one has ended, or serves."""

    def __init__(self, farm: RunningFarm, changed: Callable[[], None]) -> None:
        self.epochs: dict[int, int] = {}
        """Of those that run here, or are about to, by number."""
        self.given: set[int] = set()
        """Those that have ended to be another host's, which has to be told."""
        self._farm = farm
        self._changed = changed
        self._ready: set[int] = set()
        self._ending: set[int] = set()
        self._restarts: dict[int, int] = {}  # of those that have not served yet: what there were at the start

    @property
    def mine(self) -> dict[int, Mine]:
        """What a beat says of them."""
        return {number: Mine(epoch, number in self._ready) for number, epoch in self.epochs.items()}

    @property
    def serve(self) -> bool:
        """Whether all do."""
        return self._ready >= self.epochs.keys()

    @property
    def fail(self) -> bool:
        """Whether none of them serves, and one dies again and again."""
        routers = self._farm.routers
        return not self._ready and any(
            routers[number].restarts - before >= _DEATHS for number, before in self._restarts.items()
        )

    def look(self, answers: Answers) -> None:
        """Take from their status which of them serve."""
        ready = {
            slot.number
            for slot in self._farm.placed
            if slot.child is not None and _serves(answers.of.get(slot.number), slot.child.pid)
        }
        new = ready - self._ready
        self._ready = ready
        for number in new:
            self._restarts.pop(number, None)
            self._changed()

    def do(self, duties: Duties) -> None:
        """Start those that are here, and end those that are not, or are given to another host."""
        for placement in duties.start:
            self._start(placement)
        for number in duties.stop:
            self._end(number, given=False)
        for number in duties.hand_over:
            self._end(number, given=True)

    def _start(self, placement: Placement) -> None:
        farm, number = self._farm, placement.number
        if farm.stopping.is_set():
            return
        try:
            farm.listeners.open_routers(farm.settings.get(Listen))
        except ListenError as error:
            logs.limited("cluster.port_taken", at="error", why=str(error))
            return
        slot = farm.routers[number]
        self.epochs[number], self._restarts[number] = placement.epoch, slot.restarts
        slot.place()
        logs.event("cluster.router_here", number=number, epoch=placement.epoch)

    def _end(self, number: int, given: bool) -> None:
        if number in self._ending or number in self.given:
            return
        self._ending.add(number)
        self._farm.routers[number].withdraw()
        if given:
            logs.event("cluster.router_moves", number=number)
        else:
            logs.warning("cluster.router_lost", number=number)
        self._farm.processes.nursery.start_soon(self._ended, number, given)

    async def _ended(self, number: int, given: bool) -> None:
        """given: in good order, as in a reload."""
        farm, slot = self._farm, self._farm.routers[number]
        patience = farm.settings.get(FarmOptions).drain_grace + ROUTER_STOP_S if given else _STOP_S
        if not farm.placed:
            farm.listeners.shut_routers()
        if slot.child is not None:
            await farm.end([slot.child], patience, may_hurry=False)
        async with slot.turn:  # one that was about to be put there
            if slot.child is not None and slot.alive:
                await farm.end([slot.child], patience, may_hurry=False)
            slot.child = None
        self._ending.discard(number)
        self.epochs.pop(number, None)
        self._restarts.pop(number, None)
        if given:
            self.given.add(number)
        self._changed()


def _serves(answer: Mapping[str, Any] | None, pid: int) -> bool:
    """Whether a router with this status is the process of this number, and has heard all workers."""
    return answer is not None and answer["pid"] == pid and bool(answer["settled"])
