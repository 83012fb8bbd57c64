"""SimplePush, what both sides share: settings, and how devices are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from router.common.options import Section, option

NAME = "simplepush"
PURPOSE = b"simplepush"
DEVICES = "simplepush.device"
"""Space of the records by which a device is known: written at its first register."""
REFUSE = "refuse"
FRESH = "fresh"
"""What `malformed_uaid` may say."""


@dataclass(frozen=True)
class SimplePushOptions(Section):
    SECTION: ClassVar[str] = "simplepush"
    HELP: ClassVar[str] = "The SimplePush dialect (PushGo's names in brackets)."

    max_channels: int = option(
        200,
        "channels of one device: a hello that lists more gets a fresh uaid; a register beyond them (those of the hello "
        "and the registers of the connection) is answered with 413",
        unit="channels",
        ge=1,
    )
    max_unacked: int = option(
        1000,
        "updates, of a channel each, that a device may leave unacknowledged; what comes then waits in the store",
        unit="updates",
        ge=1,
    )
    malformed_uaid: str = option(
        REFUSE,
        "a hello whose uaid is no UUID: refuse answers 503 and closes, fresh gives a fresh one, as PushGo from 1.5rc5",
        choices=(REFUSE, FRESH),
    )
    max_data_bytes: int = option(4096, "data of one push (max_data_len)", unit="bytes", ge=0)
    hello_timeout: float = option(
        30.0, "from accept to hello; 0: no limit (client_hello_timeout)", unit="s", ge=0, le=1000
    )
    min_ping_interval: float = option(
        20.0, "two pings of a device closer than this close it; 0: no limit (client_min_ping_interval)", unit="s", ge=0
    )
    long_pongs: bool = option(False, "answer a ping with its messageType and status instead of {} (push_long_pongs)")
    pong_interval: float = option(
        0.0, "a device silent for this long is sent {}; 0: never (client_pong_interval)", unit="s", ge=0
    )
    resend_on_ack: bool = option(False, "after each ack send again all that is not acknowledged, as PushGo does")
    timeout_live: int = option(259_200, "how long an update waits for its device (timeout_live)", unit="s", ge=1)
    timeout_uaid: int = option(
        5_184_000, "a device not seen for this long is forgotten and gets a fresh uaid; 0: never", unit="s", ge=0
    )
