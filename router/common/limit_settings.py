"""The section of the settings that says how much one client may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from router.common.options import Section, option


@dataclass(frozen=True)
class LimitOptions(Section):
    SECTION: ClassVar[str] = "limits"
    HELP: ClassVar[str] = "How much one device connection may ask for, and new ones of a worker. What is beyond waits."

    commands_per_second: int = option(
        200, "messages of a device, an ack counting as often as it names updates; 0: no limit", unit="messages", ge=0
    )
    registrations_per_second: int = option(20, "channels that a device registers; 0: no limit", unit="channels", ge=0)
    setups_per_second: int = option(
        0,
        "connections that a worker accepts on the device port; further ones wait in the kernel's queue, which then is "
        "no longer than what is accepted in half of worker.accept_patience; 0: no limit",
        unit="connections",
        ge=0,
    )
    setups_wait: float = option(
        5.0,
        "a device that would wait there for longer than this is answered 503, with a Retry-After of about "
        "worker.retry_after; 0: none is",
        unit="s",
        ge=0,
    )
    burst_seconds: float = option(
        10.0, "a quiet connection may do at once what it may do in this time", unit="s", ge=0, le=3600
    )
