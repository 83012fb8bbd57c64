"""Connections to main servers, each with a transport of its own.

One pool of httpx for all of them looks through every connection for each request, and so several times where many are
under way: that took most of a question's time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What can be closed."""

    def aclose(self) -> Awaitable[None]:
        """Close it."""


C = TypeVar("C", bound=Closable)


class Connections(Generic[C]):
    """Those that are not in use, by URL. The one that was used last is taken first, so that the others can end."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._idle: dict[str, list[tuple[float, C]]] = {}  # since when, the last at the end

    def take(self, url: str) -> C:
        """One for a question to this URL."""
        idle = self._idle.get(url)
        return idle.pop()[1] if idle else self._make()

    def give(self, url: str, connection: C, now: float) -> None:
        """It is not in use any more."""
        self._idle.setdefault(url, []).append((now, connection))

    async def close_idle(self, before: float) -> None:
        """Close those that have not been used since."""
        for idle in [*self._idle.values()]:  # others are given while one is closed, perhaps of a URL that is new
            old = [connection for since, connection in idle if since < before]
            del idle[: len(old)]
            for connection in old:
                await connection.aclose()
