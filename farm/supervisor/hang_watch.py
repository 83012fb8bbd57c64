"""Kills the processes that hang, or do not begin to serve, so that others are started in their place."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from farm.settings import FarmOptions
from farm.supervisor.hangs import Reads, Silences, Turns, Waits
from farm.supervisor.slot import Slot
from farm.supervisor.status_link import ASK_TIMEOUT_S
from farm.supervisor.status_links import Answers
from router.common import logs
from router.common.options import Settings
from router.common.settings import LinkOptions


class HangWatch:
    """What is known of the processes of all slots.

    A router lives if it answers; a worker if one of the routers has received something of it, so that nothing is known
    of workers while all routers are silent. A process that starts, and has not served yet, lives if it has had the CPU;
    but only for `farm.start_timeout`, while there are all routers to join and, of a router, while it reads nothing.
    """

    def __init__(self, slots: Sequence[Slot], share: float) -> None:
        """share: the time between two looks, in parts of `farm.hang_timeout`."""
        self._slots = slots
        self._share = share
        self._silences = Silences()
        self._starting = Silences()  # of those that have not served yet: without progress
        self._turns = Turns()
        self._reads = Reads()
        self._waits = Waits()

    def look(self, answers: Answers, settings: Settings) -> None:
        """Look once, and kill. answers: the status that the routers have sent."""
        options = settings.get(FarmOptions)
        interval = options.hang_timeout * self._share
        signs, progress = self._signs(answers, interval + 2 * settings.get(LinkOptions).heartbeat)
        for numbers in (self._turns, self._reads, self._waits):
            numbers.forget_all_but(set(signs))
        waited = {pid: self._waits.since(pid) for pid, sign in signs.items() if sign is False or not progress[pid]}
        now, interval = time.monotonic(), interval + ASK_TIMEOUT_S
        self._silences.look(now, interval, signs, waited)
        self._starting.look(now, interval, progress, waited)
        silent = set(self._silences.longer_than(options.hang_timeout))
        late = set(self._starting.longer_than(options.start_timeout)) - silent
        for slot in self._slots:
            if slot.child is None or (pid := slot.child.pid) not in silent | late:
                continue
            if pid in silent:
                logs.error("process.hangs", name=slot.name, pid=pid, silent=round(self._silences.of(pid), 1))
            else:
                took = round(self._starting.of(pid), 1)
                logs.error("process.does_not_serve", name=slot.name, pid=pid, after=took, hint="farm.start_timeout")
            slot.child.signal(signal.SIGKILL)  # one that is stopped does not react to a SIGTERM

    def _signs(self, answers: Answers, recent: float) -> tuple[dict[int, bool | None], dict[int, bool | None]]:
        """For each pid whether there was a sign of life, and of progress towards serving; None: that cannot be seen.

        recent: so many seconds ago a router may have last received something of a worker that lives.
        """
        signs: dict[int, bool | None] = {}
        progress: dict[int, bool | None] = {}
        for slot in self._slots:
            if slot.child is None or slot.child.ended.is_set():
                continue
            pid = slot.child.pid
            if slot.turn.locked():  # it is being replaced, which has an end of its own
                signs[pid] = progress[pid] = None
                continue
            is_router = slot.kind == "router"
            answer = answers.of.get(slot.number) if is_router else answers.workers.get(pid)
            alive = answer is not None and (answer["pid"] == pid if is_router else answer["heard_s"] < recent)
            progress[pid] = True
            if alive:
                slot.served = pid
                signs[pid] = True
            elif slot.served != pid:
                signs[pid] = self._turns.taken(pid)
                if is_router:
                    progress[pid] = self._reads.taken(pid)
                else:
                    progress[pid] = False if answers.complete else None
            elif not is_router and not answers.of:
                signs[pid] = None
            else:
                signs[pid] = False
        return signs, progress
