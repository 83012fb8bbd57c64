"""What is handled on behalf of which request, for those who follow a push on its way: `log.pushes`, `trace.*`. Pure.

Nothing of this is there where neither is on. A request is handled in one call, so its origin is set while that lasts;
what goes on later (the rest of a batch, a read of the store) keeps it until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Origin:
    """A request of an app server."""

    __slots__ = ("request_id", "trace")

    def __init__(self, request_id: str, trace: Any = None) -> None:
        self.request_id = request_id
        self.trace = trace
        """Its part of a trace, with its name as `traceparent`; None: it is not followed."""

    @property
    def text(self) -> str:
        """For another router: the ID and, behind a space, the traceparent."""
        return f"{self.request_id} {'' if self.trace is None else self.trace.traceparent}".rstrip()


def read(text: str) -> Origin:
    """An origin of another router, without its trace."""
    return Origin(text.partition(" ")[0])


class Scope:
    """The origin of what is handled now; None: it has none that is known."""

    __slots__ = ("origin", "read")

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.read: Callable[[str], Origin] = read
        """Reads what another router has sent as `Origin.text`."""

    def call(self, origin: Origin | None, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call this on behalf of an origin."""
        before, self.origin = self.origin, origin
        try:
            return function(*arguments)
        finally:
            self.origin = before

    def asking(self, ask: Callable[..., None]) -> Callable[..., None]:
        """The same function, which has the origin of now as its last argument."""
        return lambda *arguments: ask(*arguments, "" if self.origin is None else self.origin.text)

    def kept(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, on behalf of the origin of now whenever it is called."""
        origin = self.origin
        return lambda *arguments: self.call(origin, function, *arguments)
