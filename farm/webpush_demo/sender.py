"""What an app server does for a push: encrypt it (RFC 8291), sign it (RFC 8292), and name where it goes.

Pure. The demo is a server that posts where a web page tells it to, so where it may post is decided here and narrowly:
only paths of push endpoints, only on the farm that it was started for. The host and port are never taken from the page.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import http_ece
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02, VapidException

from router.common import option_texts as texts

MAX_PLAIN_BYTES: Final = 3993
"""RFC 8291, section 4: what fits into one record of 4096 bytes beside its header, the padding delimiter and the tag."""
VAPID_LIFE_S: Final = 12 * 3600
"""RFC 8292 allows 24 hours; half of it leaves room for clocks that differ."""
SUBJECT: Final = "mailto:demo@localhost"

_ENDPOINT_TAIL: Final = re.compile(r"/wpush/(?:v[12]/)?[\w-]+", re.ASCII)
_HEADER_TEXT: Final = re.compile(r"[\x21-\x7e]*")
_PORTS: Final = {"http": 80, "https": 443}


class Refused(Exception):
    """The demo does not send this. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Base:
    """The public base of a farm's push endpoints."""

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Base:
        """Raises: ValueError with one line about what is wrong."""
        try:
            url = texts.base_url(url)
        except ValueError:
            raise ValueError(
                "expected http://HOST:PORT or https://HOST, without blanks, user, query and fragment"
            ) from None
        parts = urlsplit(url)
        assert parts.hostname is not None
        return cls(url, parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], parts.path)

    def path_of(self, endpoint: str) -> str:
        """The path of an endpoint of this farm.

        Raises: Refused if it is anything else.
        """
        try:
            parts = urlsplit(endpoint)
            origin = (parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme))
        except ValueError:
            raise Refused("That is no push endpoint. Subscribe again.") from None
        if origin != (self.scheme, self.host, self.port) or parts.username is not None:
            raise Refused(
                f"The demo sends to the farm at {self.url} only, and this endpoint is elsewhere. If it is the farm's, "
                f"start the demo with --router-url set to the farm's endpoint.url."
            )
        tail = parts.path.removeprefix(self.path) if parts.path.startswith(self.path) else ""
        if parts.query or parts.fragment or not _ENDPOINT_TAIL.fullmatch(tail):
            raise Refused("That is no push endpoint of the farm. Subscribe again.")
        return parts.path


class Keys(msgspec.Struct):
    """The subscription's keys, base64url."""

    p256dh: str
    auth: str


class Subscription(msgspec.Struct):
    """What `PushSubscription.toJSON()` gives."""

    endpoint: str
    keys: Keys


class Order(msgspec.Struct):
    """What the page asks to have sent. Topic and TTL go as they are: the farm is to judge them."""

    subscription: Subscription
    text: str
    topic: str = ""
    ttl: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] = 60
    urgency: Literal["very-low", "low", "normal", "high"] = "normal"


@dataclass(frozen=True, slots=True)
class Push:
    """One POST, ready."""

    path: str
    headers: dict[str, str]
    body: bytes


class Sender:
    """An app server with a VAPID key of its own, made new and kept nowhere else.

    Args:
        base: the farm it may send to.
        clock: seconds since 1970.
    """

    def __init__(self, base: Base, clock: Callable[[], float]) -> None:
        self.base = base
        self._clock = clock
        self._vapid = Vapid02()
        self._vapid.generate_keys()

    @property
    def public_key(self) -> str:
        """For `applicationServerKey`: the uncompressed point, base64url without padding."""
        point: bytes = self._vapid.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return base64.urlsafe_b64encode(point).rstrip(b"=").decode()

    def push(self, order: Order) -> Push:
        """Raises: Refused."""
        path = self.base.path_of(order.subscription.endpoint)
        if not _HEADER_TEXT.fullmatch(order.topic):
            raise Refused("A topic is 1 to 32 of the letters A-Z, a-z, 0-9, - and _.")
        now = self._clock()
        body = self._encrypt(order.subscription.keys, msgspec.json.encode({"text": order.text, "sent": now * 1000}))
        headers = {
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(order.ttl),
            "Urgency": order.urgency,
            **self._signature(order.subscription.endpoint, int(now)),
        }
        if order.topic:
            headers["Topic"] = order.topic
        return Push(path, headers, body)

    def _encrypt(self, keys: Keys, plain: bytes) -> bytes:
        if len(plain) > MAX_PLAIN_BYTES:
            over = len(plain) - MAX_PLAIN_BYTES
            raise Refused(f"The text is {over} bytes too long: a push carries {MAX_PLAIN_BYTES} bytes at most.")
        try:
            body: bytes = http_ece.encrypt(
                plain,
                private_key=ec.generate_private_key(ec.SECP256R1()),
                dh=_decoded(keys.p256dh),
                auth_secret=_decoded(keys.auth),
                version="aes128gcm",
            )
        except (http_ece.ECEException, ValueError, TypeError):
            raise Refused("The subscription's keys are not usable. Subscribe again.") from None
        return body

    def _signature(self, endpoint: str, now: int) -> dict[str, str]:
        parts = urlsplit(endpoint)
        claims = {"aud": f"{parts.scheme}://{parts.netloc}", "exp": now + VAPID_LIFE_S, "sub": SUBJECT}
        try:
            signed: dict[str, str] = self._vapid.sign(claims)
        except VapidException as exc:  # it takes no IPv6 literal for an audience
            raise Refused(
                f"This endpoint cannot be signed for ({exc}). Give the farm a name in endpoint.url."
            ) from None
        return signed


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Refused("The subscription's keys are not base64url. Subscribe again.") from None


_HINTS: Final = {
    400: "The farm does not take this request: mend what it names and send again.",
    401: "The subscription was made with another key: the demo was started anew. Subscribe again.",
    404: "The farm does not know this endpoint: its token key or data folder is another one. Subscribe again.",
    410: "The subscription is gone: subscribe again.",
    413: "The farm takes no message of this size: send a shorter one.",
    503: "The farm is busy or its store has failed: send again in a moment; farm status shows more.",
}


def hint(status: int) -> str:
    """What to do about an answer of the farm; empty for a good one."""
    if 200 <= status < 300:
        return ""
    return _HINTS.get(status, "This is not what a farm's router port answers: is --router-url the right one?")
