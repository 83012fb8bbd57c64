"""App servers that push at a steady rate for as long as something else happens."""

import time
from typing import Final

from bench.errors import BenchError
from bench.load.link import Message
from bench.runs.app_servers import START_SECONDS, Outcome, PushPlan, start_app_servers
from bench.runs.collected import Setup
from bench.runs.load_processes import Child, LoadProcesses
from bench.runs.virtual_users import RECEIVE_SECONDS

END_SECONDS: Final = 60.0


class Traffic:
    """Open loop: pushes are due at even steps whatever the answers do."""

    def __init__(self, processes: LoadProcesses, setup: Setup, plan: PushPlan) -> None:
        self.processes = processes
        self.children = start_app_servers(processes, setup, plan)
        self._outcome = Outcome()
        self._waiting: set[int] = set()

    def go(self, rate: float, seconds: float = 0.0) -> None:
        """Begin to push, `rate` a second in all, for so long; 0: until `end`."""
        start = time.monotonic_ns() // 1000 + int(START_SECONDS * 1e6)
        self._outcome = Outcome()
        self._waiting = {child.pid for child in self.children}
        for number, child in enumerate(self.children):
            share = rate / len(self.children)
            phase = number * 1e6 / rate
            self.processes.send([child], "go", start=start, seconds=seconds, rate=share, phase=phase, count=0)

    def receive(self, seconds: float = RECEIVE_SECONDS) -> None:
        """Let this much time pass, less if something happened."""
        for child, message in self.processes.receive(seconds):
            self._take(child, message)

    def _take(self, child: Child, message: Message) -> None:
        if message.kind == "pushed" and child.pid in self._waiting:
            self._waiting.discard(child.pid)
            self._outcome.add(message)

    @property
    def going(self) -> bool:
        return bool(self._waiting)

    def end(self) -> Outcome:
        """Push no more, and wait for the last answers.

        Raises:
          BenchError: the processes did not report what they sent.
        """
        if self._waiting:
            self.processes.send([child for child in self.children if child.pid in self._waiting], "halt")
        deadline = time.monotonic() + END_SECONDS
        while self._waiting:
            if time.monotonic() > deadline:
                raise BenchError(f"the app servers did not end within {END_SECONDS:g} s")
            self.receive()
        return self._outcome

    def dismiss(self) -> None:
        self.processes.dismiss(self.children)
