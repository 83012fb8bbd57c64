"""What every envelope and message of the link derives from."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class Part(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What envelopes and messages have in common. Nothing in them refers back to them, so the collector has no need to
    know of them."""


class Envelope(Part):
    """One ZeroMQ message."""


class Message(Part):
    """What a batch carries."""


class Request(Message):
    """A message that is, or may be, part of a call."""

    REPLY: ClassVar[Any] = None
    """Type of the payload of an OK."""
