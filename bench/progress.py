"""What is shown while a run goes on: a bar on a terminal, otherwise a line every few seconds; always on stderr."""

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_SECONDS: Final = 3.0


class Progress:
    """A context manager; one step of the run is shown at a time."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars: Bars | None = None
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._bars = Bars(*columns, console=self.console, transient=True)
        self._task: TaskID | None = None
        self._title = ""
        self._total = 0.0
        self._start = self._next_line = 0.0

    def __enter__(self) -> "Progress":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def step(self, title: str, total: float = 0) -> None:
        """Begin a step; `total` is what it counts up to, 0 if it can't say."""
        self._title, self._total = title, total
        self._start = time.monotonic()
        self._next_line = self._start + LINE_SECONDS
        if self._bars is None:
            self.console.print(f"{title} ...", highlight=False)
            return
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(title, total=total or None, rate="")

    def update(self, done: float, count: int | None = None, unit: str = "/s", note: str = "") -> None:
        """How far the step is. Beside it stands `note`, or the rate of `count`, or that of `done`."""
        now = time.monotonic()
        elapsed = max(now - self._start, 0.001)
        rate = note or f"{(done if count is None else count) / elapsed:,.0f} {unit}"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, rate=rate)
        elif now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            left = f", {(self._total - done) / (done / elapsed):.0f} s left" if done and self._total else ""
            of = f" of {self._total:,.0f}" if self._total else ""
            self.console.print(f"{self._title}: {done:,.0f}{of}, {rate}{left}", highlight=False)
