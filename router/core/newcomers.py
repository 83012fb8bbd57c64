"""Devices that have just got their uaid: nothing is stored of one that nobody has heard of, so its first register need
not be read before it is written. Pure.

A worker repeats what was not confirmed when its link is renewed, perhaps long after the device has moved on, and then
it may well have a record. So one counts as new only once in the life of a router, and only if it came a moment ago.
"""

from __future__ import annotations

from typing import Final

MOMENT_MS: Final = 1000


class Newcomers:
    """The last `most` that came. begun: since when this router has been there, in ms of the monotonic clock."""

    __slots__ = ("_begun", "_devices", "_most")

    def __init__(self, most: int, begun: int) -> None:
        self._most = most
        self._begun = begun
        self._devices: dict[bytes, bool] = {}  # device: whether nothing has been written of it

    def came(self, device: bytes, since: int, now: int) -> None:
        """It is attached under an address that has just been made. since, now: in ms of the monotonic clock."""
        if device in self._devices or since < max(self._begun, now - MOMENT_MS) or self._most <= 0:
            return
        if len(self._devices) >= self._most:
            del self._devices[next(iter(self._devices))]
        self._devices[device] = True

    def known(self, device: bytes) -> None:
        """It came under an address that it had before."""
        if device in self._devices:
            self._devices[device] = False

    def taken(self, device: bytes) -> bool:
        """Whether it is new; from now on it is not."""
        if not self._devices.get(device):
            return False
        self._devices[device] = False
        return True
