"""Close codes (RFC 6455, 7.4.1) as the farm itself uses them, whatever the dialect."""

from __future__ import annotations

from typing import Final

from router.common.answers import CloseCode, Table

NORMAL: Final = CloseCode(1000, "no dialect on this path knows this message", "Speaks to another server.")
GOING_AWAY: Final = CloseCode(
    1001, "the server goes away: connect again", "Connects again: the worker is drained, or a newer connection came."
)
PROTOCOL_ERROR: Final = CloseCode(1002, "a frame is malformed", "Is defective: it broke RFC 6455.", "protocol_errors")
NO_STATUS: Final = CloseCode(1005, "", "Has closed without a code; never sent.")
INVALID_PAYLOAD: Final = CloseCode(1007, "text is not UTF-8", "Is defective: it broke RFC 6455.", "protocol_errors")
POLICY: Final = CloseCode(
    1008,
    "a message took too long, or the main server does not allow this any more",
    "Connects again, and sends whole messages; after a refusal of the main server it logs in first.",
    "timeouts",
)
TOO_BIG: Final = CloseCode(
    1009, "a message is too long", "Sends less: worker.max_message_bytes, worker.max_fragments.", "protocol_errors"
)
INTERNAL: Final = CloseCode(1011, "internal error", "Connects again; the log has a trace.", "connections_failed")
TRY_LATER: Final = CloseCode(
    1013, "too much is being sent to this server at once", "Connects again after a while.", "given_up"
)

TABLE: Final = Table(
    "Close codes of the device port",
    (NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_PAYLOAD, POLICY, TOO_BIG, INTERNAL, TRY_LATER),
    "worker",
)
