"""How long the router waits for more pushes before its next turn. Pure: times and numbers in, seconds out.

At half of the rate that a farm reaches, a push costs more than twice the CPU: each turn finds one or two, and a turn
costs the same whatever it finds - a commit, a message to each worker and what they answer, and all those wake-ups. So
while pushes come one after another, the router waits until some sixteen have come, for a few milliseconds at most. It
does not wait

- when pushes are rare, so that a single one is answered at once;
- for more than what is likely to come: pushes come from connections that wait for no answer. Where all senders wait
  for answers, nothing comes before they have them, and to wait would only slow them down.
"""

from __future__ import annotations

from typing import Final

ENOUGH: Final = 16
"""Pushes in one turn: with more of them a push costs hardly less."""
LIKELY: Final = 2.0
"""So many pushes must be expected in the longest wait: then that one comes is nearly certain."""
RATE_WINDOW_S: Final = 0.01
"""Pushes are counted for so long before their number in a second is known."""
LATELY_S: Final = 0.1


class Gathering:
    """The rule. most: seconds from one turn to the next at most; 0: it is never waited."""

    __slots__ = ("_counted", "_most", "_rate", "_since", "_turn")

    def __init__(self, most: float) -> None:
        self._most = most
        self._rate = 0.0  # pushes a second
        self._counted = 0
        self._since = self._turn = float("-inf")

    def rest(self, now: float, pushes: int, free: int) -> float:
        """Seconds to wait now, at the end of a turn.

        pushes: how many have come so far, ever. free: connections that have sent some lately and wait for no answer.
        """
        passed = now - self._since
        if passed >= RATE_WINDOW_S:
            self._rate = (pushes - self._counted) / passed
            self._counted = pushes
            self._since = now
        rest = 0.0
        rate = self._rate
        if rate * self._most >= LIKELY:
            expected = min(rate * self._most, ENOUGH)
            if free >= expected:
                rest = max(0.0, self._turn + expected / rate - now)
        self._turn = now + rest
        return rest


class Senders:
    """The connections that have sent something lately."""

    __slots__ = ("_before", "_begun", "_now")

    def __init__(self) -> None:
        self._now: set[object] = set()
        self._before: set[object] = set()
        self._begun = 0.0

    def sent(self, sender: object) -> None:
        """One of them has sent something."""
        if sender not in self._now:
            self._now.add(sender)
            self._before.discard(sender)

    def gone(self, sender: object) -> None:
        """This one will send nothing more."""
        self._now.discard(sender)
        self._before.discard(sender)

    def count(self, now: float) -> int:
        """How many have in the last `LATELY_S`, or twice that."""
        if now - self._begun >= LATELY_S:
            self._before = self._now if now - self._begun < 2 * LATELY_S else set()
            self._now = set()
            self._begun = now
        return len(self._now) + len(self._before)
