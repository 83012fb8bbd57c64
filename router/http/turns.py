"""Work that is done a piece a turn, so that what one connection asks for does not make the others wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from router.common import logs
from router.core.scope import Scope

Job = Callable[[], bool]
"""Does one piece. Returns: whether it wants another turn."""


class Turns:
    """Jobs that wait for their next turn, in the order in which they came."""

    scope: Scope | None = None
    """Where what is done later has to be known as done for its request."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    @property
    def waiting(self) -> bool:
        """Whether there is work: then the loop should not sleep before `run`."""
        return bool(self._jobs)

    def add(self, job: Job) -> None:
        """Call a job once in the next turn, and again for as long as it returns True."""
        self._jobs.append(job)

    def run(self) -> None:
        """One turn: every job that waits now does a piece."""
        jobs = self._jobs
        for _ in range(len(jobs)):
            job = jobs.popleft()
            try:
                again = job()
            except Exception as error:  # a defect of one job must not take the router down
                logs.limited("turn.failed", at="error", per=repr(error), exc=error)
                continue
            if again:
                jobs.append(job)
