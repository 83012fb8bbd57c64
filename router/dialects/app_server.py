"""What a dialect's app-server side is given, and what it gives back beside its routes (`router.http.routes`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from router.common.client_address import Networks
from router.common.client_keys import ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import RouterCounters
from router.common.options import Settings
from router.common.token import Tokens
from router.core.facades import Core
from router.core.push_limits import PushLimits
from router.http.turns import Turns

T = TypeVar("T")


def _no_page() -> bytes:
    return b""


def _always() -> bool:
    return True


_NO_LIMITS: Final = PushLimits(LimitOptions(), ClientKeys(Networks(())), RouterCounters(), float)


@dataclass(frozen=True, slots=True)
class Context:
    """What routes and services may use."""

    core: Core
    tokens: Tokens
    settings: Settings
    unix_time: Callable[[], float]
    status: Callable[[], dict[str, Any]]
    """This router's own numbers and the workers' last snapshots. The numbers of others are asked for by an operation at
    all routers."""
    turns: Turns = field(default_factory=Turns)
    """For work of which one turn should see only a piece."""
    metrics_page: Callable[[], bytes] = _no_page
    """All numbers of this router and of the workers as text, of `router.common.exposition.CONTENT_TYPE`."""
    may_send: Callable[[], bool] = _always
    """Whether what this router knows may be sent to anybody now. What routes answer is held back by the port; a service
    that sends of its own accord asks each time. What may not be sent now may be so later."""
    limits: PushLimits = _NO_LIMITS
    """What app servers may push."""
    _shared: dict[Callable[[Context], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shared(self, make: Callable[[Context], T]) -> T:
        """What `make` makes of this context, once: for what routes and services of a dialect have in common."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found


class Service(Protocol):
    """A background task of the router. It is made before any worker has joined."""

    async def run(self) -> None:
        """Do its work until cancelled; to return at once means that there is none."""

    def close(self) -> None:
        """The router is about to end: what is held back goes into the store. `run` is cancelled some time later."""

    def counts(self) -> Mapping[str, float]:
        """Its numbers, named as in the spec's `router_metrics`."""
