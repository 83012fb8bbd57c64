"""How much one app server may push, and how much may be pushed to one endpoint. Pure.

An app server is known by where it comes from, and where its dialect has it sign what it sends, by whose signature that
is: an application. These two are counted by the router that a request came to. What is pushed to an endpoint, or to a
channel, is counted by its owner, to which all of it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import ceil
from typing import Any, Generic, TypeVar

from router.common.client_keys import NOBODY, ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import RouterCounters
from router.common.rate_table import RateTable

K = TypeVar("K", bound=Hashable)


def retry_after(seconds: float) -> tuple[str, str]:
    """The header that says how long to wait."""
    return "Retry-After", str(max(1, ceil(seconds)))


class PushLimit(Generic[K]):
    """A rate a key. Call it with a key for each push. Returns: 0.0, or for how many seconds nothing more is allowed."""

    __slots__ = ("_count", "_key_of", "_monotonic", "_table", "longest")

    def __init__(
        self,
        reason: str,
        per_second: float,
        limits: LimitOptions,
        counters: RouterCounters,
        monotonic: Callable[[], float],
        key_of: Callable[[K], Hashable] | None = None,
    ) -> None:
        """reason: the option. key_of: makes what is counted of a key; NOBODY is not."""
        self._table = RateTable(per_second, per_second * limits.burst_seconds, limits.tracked)
        self._monotonic = monotonic
        self._key_of = key_of
        self._count: Callable[[], None] = lambda: counters.count(f"limited_{reason}")
        self.longest = self._table.step
        """For so long waits at most who pushes one at a time, in seconds."""

    def __call__(self, key: K, count: int = 1) -> float:
        counted: Any = key
        if self._key_of is not None and (counted := self._key_of(key)) == NOBODY:
            return 0.0
        wait = self._table.take(counted, self._monotonic(), count)
        if wait:
            self._count()
        return wait

    def of_all(self, keys: list[K]) -> float:
        """The same for one push to several: it is allowed to all of them, or counted for none."""
        now = self._monotonic()
        wait = max((self._table.wait(key, now) for key in keys), default=0.0)
        if wait:
            self._count()
        else:
            for key in keys:
                self._table.add(key, now)
        return wait


class PushLimits:
    """Those that are set; None: there is no such limit, and nobody is to ask."""

    __slots__ = ("address", "application", "endpoint")

    def __init__(
        self, limits: LimitOptions, keys: ClientKeys, counters: RouterCounters, monotonic: Callable[[], float]
    ) -> None:
        def made(reason: str, key_of: Callable[[str], Hashable] | None = None) -> PushLimit[Any] | None:
            rate = getattr(limits, reason)
            return PushLimit(reason, rate, limits, counters, monotonic, key_of) if rate else None

        self.address: PushLimit[str] | None = made("pushes_per_address", keys)
        """Of the address of an app server, as `Request.address` has it."""
        self.application: PushLimit[str | bytes] | None = made("pushes_per_application")
        """Of what an app server has signed as. The key says which dialect is meant, too."""
        self.endpoint: PushLimit[bytes] | None = made("pushes_per_endpoint")
        """Of what is pushed to, at its owner. The key is one that no other dialect has."""
