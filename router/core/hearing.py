"""Up to when a router has heard all that its workers have sent. Pure."""

from __future__ import annotations

from typing import Final

_SHARE: Final = 4
_LEAST_S: Final = 0.25


class Hearing:
    """Doubts for a while after a standstill of this process that nothing is left to receive.

    What came meanwhile lies in sockets of the kernel until the thread of libzmq, which stood still too, has read it:
    that takes one worker's after another's, and the link is found empty in between. So a standstill is a quarter of the
    lease without a question, and the doubt is as long.
    """

    def __init__(self, lease: float, now: float) -> None:
        self._while = max(lease / _SHARE, _LEAST_S)
        self._asked = now
        self._sure_from = now
        self._until = now

    def until(self, now: float, empty: float) -> float:
        """To be asked a few times a second. empty: when the link was found empty last."""
        if now - self._asked > self._while:
            self._sure_from = now + self._while
        self._asked = now
        if now >= self._sure_from:
            self._until = empty
        return self._until
