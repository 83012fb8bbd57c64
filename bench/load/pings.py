"""Pings of devices and what becomes of them. Pure: the caller passes the time.

Each device has its turn once an interval, one after the other: no device needs a timer.
"""

from collections.abc import Iterator


class Pings:
    """Times in seconds of one clock. `overdue`: not answered in time, or the connection ended before the answer; `cut`:
    it was the bench that ended it.

    Args:
      interval: s between two pings of a device; 0: none.
      timeout: s that an answer may take.
    """

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self.interval = interval
        self.sent = self.answered = self.overdue = self.cut = 0
        self._timeout = timeout
        self._turned_at = now
        self._pointer = 0
        self._awaited: dict[int, float] = {}  # oldest first
        self._reported = self._counts()

    def turns(self, devices: int, now: float) -> Iterator[int]:
        """Devices whose turn it is, of so many; not those that still owe an answer."""
        if not devices:
            self._turned_at = now
            return
        step = self.interval / devices
        due = int((now - self._turned_at) / step)
        self._turned_at += due * step
        for _ in range(min(due, devices)):
            self._pointer = self._pointer + 1 if self._pointer + 1 < devices else 0
            if self._pointer not in self._awaited:
                yield self._pointer

    def ping(self, device: int, now: float) -> None:
        """A ping is sent to it."""
        self.sent += 1
        self._awaited[device] = now

    def pong(self, device: int) -> None:
        """It answered."""
        if self._awaited and self._awaited.pop(device, None) is not None:
            self.answered += 1

    def gone(self, device: int, cut: bool) -> None:
        """Its connection ended; `cut`: the bench ended it."""
        if self._awaited and self._awaited.pop(device, None) is not None:
            self.cut += cut
            self.overdue += not cut

    def expire(self, now: float) -> None:
        """Count what was not answered in time."""
        while self._awaited:
            device, sent = next(iter(self._awaited.items()))
            if now - sent < self._timeout:
                break
            del self._awaited[device]
            self.overdue += 1

    def since_last(self) -> dict[str, int]:
        """What was counted since the last call, and how many answers are outstanding."""
        counts = self._counts()
        since = {name: count - self._reported[name] for name, count in counts.items()}
        self._reported = counts
        return since | {"outstanding": len(self._awaited)}

    def _counts(self) -> dict[str, int]:
        return {"sent": self.sent, "answered": self.answered, "overdue": self.overdue, "cut": self.cut}
