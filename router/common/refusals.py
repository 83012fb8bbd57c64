"""What the ports themselves refuse with, whatever the dialect: one row a status of HTTP, which a test holds against the
code; it says more particularly what is wrong. And how the router refuses on the link."""

from __future__ import annotations

from typing import Final

from router.common import messages as v
from router.common.answers import Answer, Side, Table

_MEND: Final = "Does not send it again: the request is wrong."
_LESS: Final = "Sends less."
_LATER: Final = "Comes again after Retry-After."
_AGAIN: Final = "Comes again; the log has a trace."

_OF_HEADS: Final = {
    400: "the request is malformed",
    413: "a body is too long, or there should be none",
    414: "the request line is too long",
    417: "only 100-continue can be expected",
    431: "the headers are too many or too long",
    501: "the method or the transfer coding is not known",
    505: "HTTP/1.1 is expected",
}


def _of_heads(metric: str) -> dict[int, Answer]:
    return {
        status: Answer(status, text, _LESS if status in (413, 414, 431) else _MEND, metric)
        for status, text in _OF_HEADS.items()
    }


def _table(title: str, rows: dict[int, Answer], side: Side) -> Table:
    return Table(title, [rows[status] for status in sorted(rows)], side)


_REFUSED: Final = "upgrades_refused"
DEVICE_PORT: Final = _table(
    "HTTP errors of the device port",
    _of_heads(_REFUSED)
    | {
        answer.status: answer
        for answer in (
            Answer(403, "origin is not allowed", "Is a page of another site: worker.origins.", _REFUSED),
            Answer(404, "no dialect is spoken on this path", _MEND, _REFUSED),
            Answer(405, "the path takes another method", _MEND, _REFUSED),
            Answer(408, "the request took too long", "Sends it faster: worker.handshake_timeout.", "timeouts"),
            Answer(411, "a body here has a Content-Length", _MEND, _REFUSED),
            Answer(426, "this port speaks WebSocket, version 13", "Asks for an upgrade.", _REFUSED),
            Answer(500, "internal error", _AGAIN, _REFUSED),
            Answer(503, "the worker is full or draining, or the router cannot take it", _LATER, "connections_refused"),
            Answer(504, "this was not decided in time", "Comes again: the router does not answer.", "timeouts"),
        )
    },
    "worker",
)
ROUTER_PORT: Final = _table(
    "HTTP errors of the router port",
    _of_heads("http_bad_requests")
    | {
        answer.status: answer
        for answer in (
            Answer(
                403, "the admin key is missing or wrong", "Shows the key that the text names, or comes from this host."
            ),
            Answer(404, "nothing is served on this path", _MEND),
            Answer(405, "the path takes another method", _MEND),
            Answer(408, "the request took too long", "Sends it faster: endpoint.request_timeout.", "http_bad_requests"),
            Answer(500, "internal error", _AGAIN),
            Answer(503, "too many connections, or too much is being sent at once", _LATER, "http_refused"),
        )
    },
    "router",
)

LINK: Final = Table(
    "Replies of the router on the link, and results of workers",
    (
        Answer(
            0,
            "UNKNOWN: the record that a device's ATTACH needs is not there",
            "Gives the device a fresh ID.",
            "",
            v.UNKNOWN,
        ),
        Answer(0, "FAILED: the store could not do it", "Refuses the command, or closes.", "", v.FAILED),
        Answer(0, "FULL: the record or the channel has as many members as it may", "Refuses the command.", "", v.FULL),
        Answer(0, "MOVED: there is a newer connection of the device", "Closes this one.", "", v.MOVED),
        Answer(
            0,
            "NOT_HERE: a worker has no such device, or it does not read",
            "Keeps the message.",
            "deliveries_missed",
            v.NOT_HERE,
        ),
    ),
    "worker",
)
