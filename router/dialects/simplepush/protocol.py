"""SimplePush, what both sides share: settings, and how devices are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from router.common.answers import Answer, CloseCode, Table
from router.common.auth_settings import auth_url_option
from router.common.options import Section, option

NAME = "simplepush"
PURPOSE = b"simplepush"
DEVICES = "simplepush.device"
"""Space of the records by which a device is known: written at its first register."""
REFUSE = "refuse"
FRESH = "fresh"
"""Values of `malformed_uaid`."""


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
    auth_url: str = auth_url_option()


# ---------------------------------------------------------------------- what refuses

_MEND: Final = "Is defective, or of another protocol: it connects again, and sends another command."
_AGAIN: Final = "Connects again, and after a while sends it again."
_NEVER: Final = "Does not send it again: the request is wrong."
_LATER: Final = "Sends it again after Retry-After."
_PING_LESS: Final = "Connects again, and pings less often: simplepush.min_ping_interval."
_UNREAD: Final = "commands_refused"

REFUSED: Final = CloseCode(
    1000, "a command was refused", "Connects again; the answer before gives the reason.", _UNREAD
)
NOT_JSON: Final = CloseCode(1000, "not JSON", _MEND)
NO_OBJECT: Final = CloseCode(1000, "a command is a JSON object", _MEND, _UNREAD)
NO_HELLO: Final = CloseCode(1000, "no hello in time", "Connects again, and sends hello at once.", "timeouts")
MOVED: Final = CloseCode(1001, "a newer connection of this device came", "Goes on with its newer connection.")
STORE_FAILED: Final = CloseCode(1013, "Error updating channel record", _AGAIN, _UNREAD)
CLOSES: Final = Table("Close codes", (REFUSED, NOT_JSON, NO_OBJECT, NO_HELLO, MOVED, STORE_FAILED), "worker")

ERRORS: Final = {
    answer.number: answer
    for answer in (
        Answer(401, "Invalid command header", _MEND, _UNREAD, 101),
        Answer(401, "Unsupported command type", _MEND, _UNREAD, 102),
        Answer(503, "Invalid device ID", "Sends hello without a uaid, for a fresh one.", _UNREAD, 104),
        Answer(503, "Invalid channel ID", _MEND, _UNREAD, 106),
        Answer(401, "Missing one or more required command fields", _MEND, _UNREAD, 107),
        Answer(401, "Command contains one or more invalid fields", _MEND, _UNREAD, 108),
        Answer(401, "Command requires handshake", "Connects again, and sends hello first.", _UNREAD, 201),
        Answer(503, "Device ID already assigned to this client", "Opens a connection for each uaid.", _UNREAD, 202),
        Answer(401, "Client sent too many pings", _PING_LESS, "pings_too_many", 203),
        Answer(503, STORE_FAILED.text, _AGAIN, _UNREAD, 402),
    )
}
"""PushGo's error table, by number. Each is followed by a close, 402 by STORE_FAILED and the others by REFUSED."""
TOO_MANY_CHANNELS: Final = Answer(
    413, "The device has too many channels", "Goes on with the channels that it has: simplepush.max_channels.", _UNREAD
)
COMMANDS: Final = Table("Errors of commands", (*ERRORS.values(), TOO_MANY_CHANNELS), "worker")

BAD_VERSION: Final = Answer(400, "Invalid Version", _NEVER, "pushes_invalid")
BAD_TOKEN: Final = Answer(404, "Invalid Token", "Does not use this endpoint again.", "pushes_rejected")
BAD_METHOD: Final = Answer(405, "Method Not Allowed", "Sends PUT.")
TOO_LONG: Final = Answer(413, "Data exceeds max length", "Sends less: simplepush.max_data_bytes.", "pushes_too_long")
TOO_MANY_LINES: Final = Answer(413, "Too many lines", "Sends fewer lines in a request: endpoint.max_batch.")
NO_LINES: Final = Answer(400, "One JSON object a line is expected, with endpoint or token", _NEVER)
TOO_OFTEN: Final = Answer(429, "Too many updates for this endpoint", _LATER, "limited_pushes_per_endpoint")
NOT_KEPT: Final = Answer(503, "Could not update channel version", _LATER, "pushes_refused")
INBOX_FULL: Final = Answer(503, "The device has too many updates waiting", _LATER, "pushes_refused")
STORE_FULL: Final = Answer(503, "The store is full (store.max_bytes)", _LATER, "pushes_over")
FAILED: Final = Answer(500, "Internal Server Error", "Sends it again; the router's log has a trace.")
APP_SERVERS: Final = Table(
    "Errors of app servers' requests",
    (
        NO_LINES,
        BAD_VERSION,
        BAD_TOKEN,
        BAD_METHOD,
        TOO_LONG,
        TOO_MANY_LINES,
        TOO_OFTEN,
        FAILED,
        NOT_KEPT,
        INBOX_FULL,
        STORE_FULL,
    ),
    "router",
)
TABLES: Final = (CLOSES, COMMANDS, APP_SERVERS)
