"""The answers of the WebPush routes: those of the error table, made once, and the others."""

from __future__ import annotations

from typing import Final

import msgspec

from router.common.answers import Answer
from router.core.push_limits import retry_after
from router.dialects.webpush import protocol as p
from router.http.message import Response

_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    410: "Gone",
    413: "Payload Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
_MORE_INFO: Final = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"
CORS: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Location, TTL, Retry-After, WWW-Authenticate"),
)
# The star does not stand for Authorization (Fetch standard), nor for anything in older browsers.
PREFLIGHT: Final = Response(
    200,
    headers=(
        *CORS,
        ("Access-Control-Allow-Methods", "DELETE, GET, POST, PUT"),
        (
            "Access-Control-Allow-Headers",
            "Authorization, Content-Encoding, Content-Type, Crypto-Key, Encryption, Encryption-Key, Prefer, Topic, "
            "TTL, Urgency, *",
        ),
        ("Access-Control-Max-Age", "3600"),
    ),
)


def error(answer: Answer, *headers: tuple[str, str], text: str = "") -> Response:
    """text: more particular than the table's."""
    body = {
        "code": answer.status,
        "errno": answer.number,
        "error": _REASONS[answer.status],
        "message": text or answer.text,
        "more_info": _MORE_INFO,
    }
    return Response(answer.status, msgspec.json.encode(body), headers=(*headers, *CORS))


def too_often(answer: Answer, wait: float) -> Response:
    """To who pushes again after so many seconds."""
    return error(answer, retry_after(wait))


_WAIT: Final = ("Retry-After", "120")
_FORGET: Final = ("Cache-Control", "max-age=86400")
ONLY_POST: Final = error(p.ONLY_POST, ("Allow", "POST, OPTIONS"))
ONLY_DELETE: Final = error(p.ONLY_DELETE, ("Allow", "DELETE, OPTIONS"))
BAD_TOKEN: Final = Response(p.BAD_TOKEN.status, headers=CORS)  # without a body, as autopush has it
BAD_MESSAGE: Final = error(p.BAD_MESSAGE)
BAD_ENCODING: Final = error(p.BAD_ENCODING)
NOT_OF_AES128GCM: Final = error(p.NOT_OF_AES128GCM)
BAD_ENCRYPTION: Final = error(p.BAD_ENCRYPTION)
BAD_CRYPTO_KEY: Final = error(p.BAD_CRYPTO_KEY)
BAD_TTL: Final = error(p.BAD_TTL)
BAD_TOPIC: Final = error(p.BAD_TOPIC)
NEGATIVE_TTL: Final = error(p.NEGATIVE_TTL)
BAD_URGENCY: Final = error(p.BAD_URGENCY)
NO_DEVICE: Final = error(p.NO_DEVICE, _FORGET)
NO_CHANNEL: Final = error(p.NO_CHANNEL, _FORGET)
FULL: Final = error(p.INBOX_FULL, _WAIT)
BUSY: Final = error(p.BUSY, _WAIT)
NOT_KEPT: Final = error(p.NOT_KEPT, _WAIT)
NO_ROOM: Final = error(p.STORE_FULL, _WAIT)
DELETED: Final = Response(204, headers=CORS)
