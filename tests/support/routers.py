"""Several routers in one process: what one is asked about another's keys, that one performs."""

from __future__ import annotations

from collections.abc import Callable

from router.common import messages as m
from router.core.operations import Operations
from support.common import Clock, Rig


class Routers:
    """Rigs with one clock, each asking the others without delay. `away`: numbers of those that do not answer."""

    def __init__(self, number: int) -> None:
        clock = Clock()
        self.away: set[int] = set()
        self.lost: set[int] = set()
        """Those that perform what they are asked, and whose answers are lost."""
        self.rigs = [Rig(router=router, routers=number, clock=clock) for router in range(number)]
        for rig in self.rigs:
            rig.hub.core.operations._ask = self._ask

    def _ask(
        self, owner: int, dialect: str, key: bytes, operation: bytes, answered: Callable[[int, bytes], None]
    ) -> None:
        if owner in self.away:
            answered(m.UNREACHED, b"")
        elif owner in self.lost:
            self._operations(owner).perform(dialect, key, operation, lambda status, reply: None)
            answered(m.UNREACHED, b"")
        else:
            self._operations(owner).perform(
                dialect, key, operation, lambda status, reply: answered(status, reply or b"")
            )

    def _operations(self, router: int) -> Operations:
        return self.rigs[router].hub.core.operations

    def owner(self, key: bytes) -> Rig:
        """Whose key it is."""
        return self.rigs[self._operations(0).owner(key)]
