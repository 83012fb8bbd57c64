"""The numbers by which messages are known, unique over all routers of a farm. Pure.

| number | layout, highest bits first |
|---|---|
| sequence of a message: its place in the order of arrival | unix microseconds, 9 bits of the router's number |
| time and tag of an event of a log | whole seconds of its sequence, and the rest of it |
| epoch of a log: one life of it, in which an offset is one event | unix milliseconds, 9 bits of the router's number |
| number that a worker answers (DELIVER, SEND_COUNTS) | 9 bits of the router's number, 54 that begin anywhere |
| number of a worker's question to the main server | 9 bits of the router that is asked, 54 that count up |

Each router of a farm has a number of its own, below 512, for as long as it runs; so no two routers give the same
number, whatever their clocks say. One router gives none twice: it counts on where its clock stands still or is set
back, and after a restart it begins above what its store has seen.

Order is kept where one router at a time gives the numbers, and that is so for each device and each channel: an address
has one owner. Two sequences of different routers are in the order of those routers' clocks, no better.

A sequence takes more than 53 bits, so a JavaScript client gets it only as text. An epoch, a time and a tag
stay below 2**53. Sequences and epochs of before there were routers' bits are smaller than all of these.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

ROUTER_BITS: Final = 9
MAX_ROUTERS: Final = 1 << ROUTER_BITS
SECOND: Final = 1_000_000 << ROUTER_BITS
"""By so much a sequence grows in a second. (The rest of its division by this is the tag of an event.)"""
_COUNTED_BITS: Final = 54


class Sequencer:
    """Gives out sequences and versions. router: its number. unix_time, monotonic: clocks in seconds."""

    __slots__ = ("_ahead", "_last", "_monotonic", "_router", "_unix_time")

    def __init__(self, router: int, unix_time: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._router = _checked(router)
        self._unix_time = unix_time
        self._monotonic = monotonic
        self._last = 0  # microseconds of the last one given
        self._ahead = int(unix_time() * 1e6) - int(monotonic() * 1e6)  # of the one clock before the other, at most

    def next(self) -> int:
        """The next place in the order of arrival: strictly growing, and later than any before a restart."""
        now = int(self._unix_time() * 1e6)
        # The usual, as nearly every push asks; how far the clock is ahead is seen at the next tick.
        self._last = now = now if now > self._last else max(self._last + 1, self.tick())
        return now << ROUTER_BITS | self._router

    def version(self) -> int:
        """The time in unix seconds as the version of a push that names none: never less than that of one before."""
        return self.tick() // 1_000_000

    def begin_after(self, sequence: int) -> None:
        """The store may hold messages up to this place in the order of arrival."""
        self._last = max(self._last, sequence >> ROUTER_BITS)
        self._ahead = max(self._ahead, (sequence >> ROUTER_BITS) - int(self._monotonic() * 1e6))

    def tick(self) -> int:
        """To be called a few times a second. Returns: unix time in microseconds; where the clock is set back it goes on
        as if it had not been."""
        monotonic = int(self._monotonic() * 1e6)
        self._ahead = max(self._ahead, int(self._unix_time() * 1e6) - monotonic)
        return monotonic + self._ahead


def seconds_until(sequence: int, unix_time: float) -> float:
    """Until a clock that shows this is past the time of a sequence; 0: it is already."""
    return max(sequence / SECOND - unix_time, 0.0)


def next_epoch(previous: int, router: int, unix_time: float) -> int:
    """An epoch greater than `previous` and, unless the clock went back, than that of any lost store.

    Milliseconds: two starts of a router are further apart."""
    return max((previous >> ROUTER_BITS) + 1, int(unix_time * 1000)) << ROUTER_BITS | _checked(router)


def first_sequence(epoch: int) -> int:
    """The sequence at which this epoch began: in its log there is nothing from before."""
    return (epoch >> ROUTER_BITS) * 1000 << ROUTER_BITS


def first_number(router: int, incarnation: bytes) -> int:
    """The number before the first that a router asks workers with in this life. In effect chosen at random, from so
    many that the numbers of two lives do not meet; and counted on as long as one may, it stays this router's."""
    chance = int.from_bytes(blake2b(incarnation, digest_size=8).digest(), "big")
    return _checked(router) << _COUNTED_BITS | chance & (1 << _COUNTED_BITS - 1) - 1


def router_of(number: int) -> int:
    """The router that is in this number: the one that asked with it, and that the answer is for."""
    return number >> _COUNTED_BITS


def of_router(router: int, number: int) -> int:
    """This number with a router in it. number: of 54 bits at most."""
    return _checked(router) << _COUNTED_BITS | number


def _checked(router: int) -> int:
    if not 0 <= router < MAX_ROUTERS:
        raise ValueError(f"a router's number is from 0 to {MAX_ROUTERS - 1}, not {router}")
    return router
