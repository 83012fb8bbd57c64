"""What the ports themselves refuse with, whatever the dialect, and how the router refuses on the link.

The code sends these rows; a text may be more particular where it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from router.common.answers import Answer, Table
from router.common.messages import FAILED, FULL, MOVED, NOT_HERE, UNKNOWN

_MEND: Final = "Does not send it again: the request is wrong."
_LESS: Final = "Sends less."
_LATER: Final = "Comes again after Retry-After."
_AGAIN: Final = "Comes again; the log has a trace."

# ---------------------------------------------------------------------- requests as such, on both ports

MALFORMED: Final = Answer(400, "The request is malformed", _MEND)
TOO_LARGE: Final = Answer(413, "Content Too Large", _LESS)
LONG_LINE: Final = Answer(414, "The request line is too long", _LESS)
PLAIN_HTTP: Final = Answer(400, "this port speaks TLS", "Asks with https or wss.")
EXPECTATION: Final = Answer(417, "only 100-continue can be expected", _MEND)
LONG_HEAD: Final = Answer(431, "Request Header Fields Too Large", _LESS)
UNKNOWN_METHOD: Final = Answer(501, "The method or the transfer coding is not known", _MEND)
OTHER_VERSION: Final = Answer(505, "HTTP/1.1 is expected", _MEND)
HEADS: Final = (MALFORMED, TOO_LARGE, LONG_LINE, EXPECTATION, LONG_HEAD, UNKNOWN_METHOD, OTHER_VERSION)


def _counted(metric: str) -> list[Answer]:
    return [answer._replace(metric=metric) for answer in HEADS]


def _by_status(rows: Iterable[Answer]) -> list[Answer]:
    return sorted(rows, key=lambda answer: answer.status)


# ---------------------------------------------------------------------- the device port

_REFUSED: Final = "upgrades_refused"
BAD_ORIGIN: Final = Answer(403, "origin is not allowed", "Is a page of another site: worker.origins.", _REFUSED)
NO_DIALECT: Final = Answer(404, "no dialect is spoken on this path", _MEND, _REFUSED)
OTHER_METHOD: Final = Answer(405, "The path takes another method", _MEND, _REFUSED)
SLOW: Final = Answer(408, "the request took too long", "Sends it faster: worker.handshake_timeout.", "timeouts")
NO_LENGTH: Final = Answer(411, "a body here has a Content-Length", _MEND, _REFUSED)
NO_UPGRADE: Final = Answer(426, "this port speaks WebSocket", "Asks for an upgrade to version 13.", _REFUSED)
DEFECT: Final = Answer(500, "internal error", _AGAIN, _REFUSED)
NO_ROOM: Final = Answer(503, "the worker is full or is about to stop", _LATER, "connections_refused")
TOO_FAST: Final = Answer(503, "too many connect at once", _LATER, "setups_refused")
TOO_MANY_OF_ADDRESS: Final = Answer(
    429, "too many connections from this address", _LATER, "limited_connections_per_address"
)
TOO_OFTEN: Final = Answer(429, "too many connects from this address", _LATER, "limited_setups_per_address")
ROUTER_BUSY: Final = Answer(503, "the router cannot take this now", _LATER, _REFUSED)
NOT_DECIDED: Final = Answer(504, "this was not decided in time", "Comes again: the router does not answer.", "timeouts")
UNUSABLE: Final = Answer(
    502, "the main server's answer cannot be used", "Comes again; auth.undecided in the log says why.", _REFUSED
)
NOT_ASKED: Final = Answer(503, "the main server cannot be asked now", _LATER, _REFUSED)
NOT_ANSWERED: Final = Answer(
    504, "the main server did not answer in time", "Comes again: the main server is slow.", _REFUSED
)
DEVICE_PORT: Final = Table(
    "HTTP errors of the device port",
    _by_status(
        (
            *_counted(_REFUSED),
            PLAIN_HTTP,
            BAD_ORIGIN,
            NO_DIALECT,
            OTHER_METHOD,
            SLOW,
            NO_LENGTH,
            NO_UPGRADE,
            TOO_MANY_OF_ADDRESS,
            TOO_OFTEN,
            DEFECT,
            NO_ROOM,
            TOO_FAST,
            ROUTER_BUSY,
            NOT_DECIDED,
            UNUSABLE,
            NOT_ASKED,
            NOT_ANSWERED,
        )
    ),
    "worker",
)

# ---------------------------------------------------------------------- the router port

_BAD: Final = "http_bad_requests"
NO_ADMIN_KEY: Final = Answer(
    403, "the admin key is missing or wrong", "Shows the key that the text names, or comes from this host."
)
NO_ROUTE: Final = Answer(404, "Not Found", _MEND)
BAD_METHOD: Final = Answer(405, "Method Not Allowed", _MEND)
REQUEST_TIMEOUT: Final = Answer(408, "Request Timeout", "Sends it faster: endpoint.request_timeout.", _BAD)
TOO_MANY_PUSHES: Final = Answer(429, "Too many pushes from this address", _LATER, "limited_pushes_per_address")
ROUTE_FAILED: Final = Answer(500, "Internal Server Error", _AGAIN)
TOO_MANY: Final = Answer(503, "Too many connections", _LATER, "http_refused")
NOT_OWNED: Final = Answer(
    503, "The store has not confirmed in time that this router owns its part", _LATER, "http_unowned"
)
TOO_MUCH: Final = Answer(503, "Too much is being sent to this server at once", _LATER, "http_given_up")
ROUTER_PORT: Final = Table(
    "HTTP errors of the router port",
    _by_status(
        (
            *_counted(_BAD),
            PLAIN_HTTP,
            NO_ADMIN_KEY,
            NO_ROUTE,
            BAD_METHOD,
            REQUEST_TIMEOUT,
            TOO_MANY_PUSHES,
            ROUTE_FAILED,
            TOO_MANY,
            TOO_MUCH,
            NOT_OWNED,
        )
    ),
    "router",
)

# ---------------------------------------------------------------------- the link, where only the number is sent

LINK: Final = Table(
    "Replies of the router on the link, and results of workers",
    (
        Answer(
            0,
            "UNKNOWN: the record that a device's ATTACH needs is not there",
            "Gives the device a fresh ID.",
            "",
            UNKNOWN,
        ),
        Answer(0, "FAILED: the store could not do it", "Refuses the command, or closes.", "", FAILED),
        Answer(0, "FULL: the record or the channel has as many members as it may", "Refuses the command.", "", FULL),
        Answer(0, "MOVED: there is a newer connection of the device", "Closes this one.", "", MOVED),
        Answer(
            0,
            "NOT_HERE: a worker has no such device, or it does not read",
            "Keeps the message.",
            "deliveries_missed",
            NOT_HERE,
        ),
    ),
    "worker",
)
