"""What a dialect's devices are to the operators of a farm: a dialect that has any makes a `DeviceBook` of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

Done = Callable[[int, str], None]
"""Called once: what an app server would be answered, as a status of HTTP, and in words what that means."""


class TestPush(msgspec.Struct):
    """A message that an operator sends to a device, as an app server would."""

    channel: Annotated[str, Meta(max_length=200)] = ""
    """ID of the channel; "": the dialect chooses one, if it knows of any."""
    data: Annotated[str, Meta(max_length=65_536)] = ""
    ttl: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 60
    """Seconds for which it waits for the device, where the dialect has it so."""


class DeviceBook:
    """The devices of one dialect. Any router may be asked, whoever owns them."""

    __slots__ = ()

    space: str
    """Of the records by which its devices are known."""

    def address(self, uaid: str) -> bytes | None:
        """The 16-byte address of the device with this uaid; None: that is none of this dialect."""
        raise NotImplementedError

    def uaid(self, address: bytes) -> str | None:
        """The uaid of an address; None: it cannot be known from that."""
        return None

    def of_endpoint(self, endpoint: str) -> tuple[bytes, str] | None:
        """Address and channel ID of a push endpoint; None: it is none of this dialect, or the keys have changed."""
        raise NotImplementedError

    def channels(self, record: bytes | None) -> list[str] | None:
        """The channel IDs in a device's record; None: the dialect does not keep them."""
        return None

    def channel(self, slot: str) -> str:
        """The channel ID of a message that waits in this slot."""
        raise NotImplementedError

    def push(self, address: bytes, record: bytes | None, push: TestPush, done: Done) -> None:
        """Send a message, as for an app server. record: the device's. Raises: `managing.Refusal` for what it cannot."""
        raise NotImplementedError
