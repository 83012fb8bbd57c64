"""VAPID: the sender of a push (RFC 8292) identifies itself by a JWT (RFC 7519) that is signed with ES256 and with
nothing else.

Two spellings of the request are known: `Authorization: vapid t=<jwt>, k=<key>`, and the older draft's `Authorization:
WebPush <jwt>` (or `Bearer`) with the key in `Crypto-Key: p256ecdsa=<key>`. A signature costs as much to check as a
hundred tokens to open, so headers that were found good are remembered; their expiry is looked at each time.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

POINT_BYTES: Final = 65
"""An uncompressed point of P-256: 4, x, y."""
_KEY_CHARS: Final = 88  # of such a point in base64url, with its padding
_SIGNATURE_BYTES: Final = 64
_CURVE: Final = ec.SECP256R1()
_ES256: Final = ec.ECDSA(SHA256())
_PADDING: Final = (b"", b"===", b"==", b"=")
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

K = TypeVar("K")
V = TypeVar("V")


class VapidError(ValueError):
    """The sender is not identified; the text says why."""


class Recent(Generic[K, V]):
    """At most `limit` values, of which those asked for lately stay: two generations, the older one is dropped whole."""

    __slots__ = ("_half", "_new", "_old")

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        value = self._new.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        if len(self._new) >= self._half:
            self._old, self._new = self._new, {}
        self._new[key] = value

    def __len__(self) -> int:
        return len(self._new) + len(self._old)


def encode_base64url(data: bytes) -> bytes:
    """Base64url without padding (RFC 7515)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def decode_base64url(text: bytes) -> bytes:
    """The bytes of base64url without padding. One spelling each: what `encode_base64url` would not give is refused.

    Raises: VapidError.
    """
    try:
        data = binascii.a2b_base64(text.translate(_TO_STANDARD) + _PADDING[len(text) & 3], strict_mode=True)
    except binascii.Error:
        data = b""
    if not data or encode_base64url(data) != text:
        raise VapidError("not base64url")
    return data


def public_key(text: bytes) -> bytes:
    """The raw public key, 65 bytes, from base64url; padding is tolerated.

    Raises: VapidError if it is no point of P-256.
    """
    return _load(text)[0]


def key_digest(raw: bytes) -> bytes:
    """What an endpoint that is bound to a sender's key remembers of it: SHA-256 of the raw key."""
    return sha256(raw).digest()


def _load(text: bytes) -> tuple[bytes, ec.EllipticCurvePublicKey]:
    if len(text) > _KEY_CHARS:
        raise VapidError("the public key is too long")
    if len(text) % 4 == 0:
        text = text.rstrip(b"=")
    try:
        raw = decode_base64url(text)
        if len(raw) != POINT_BYTES:
            raise VapidError("of another length")
        return raw, ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, raw)
    except ValueError as error:
        raise VapidError("the public key is not an uncompressed point of P-256 in base64url") from error


def audiences(url: str) -> frozenset[str]:
    """The spellings of this URL's origin, in lower case: as it stands, with and without its scheme's usual port, and
    with a slash at the end, as different senders write it."""
    parts = urlsplit(url.lower())
    origin = f"{parts.scheme}://{parts.netloc}"
    usual = _DEFAULT_PORTS.get(parts.scheme, "")
    found = {origin}
    if usual and origin.endswith(usual):
        found.add(origin.removesuffix(usual))
    elif not parts.netloc.rpartition(":")[2].isdigit():
        found.add(origin + usual)
    return frozenset(found | {each + "/" for each in found})


def parameters(text: bytes) -> dict[bytes, bytes]:
    """The `name=value` parts of a header that are separated by commas or semicolons, names in lower case; of a
    repeated one the first. A value may stand in quotes."""
    found: dict[bytes, bytes] = {}
    for part in text.replace(b";", b",").split(b","):
        name, _, value = part.partition(b"=")
        found.setdefault(name.strip().lower(), value.strip().strip(b'"'))
    return found


class _Head(msgspec.Struct, gc=False):
    alg: str
    crit: Any = None


class _Claims(msgspec.Struct):
    exp: float  # an integer is taken too; one beyond measure becomes infinite
    aud: str | list[str]


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_claims = msgspec.json.Decoder(_Claims).decode


class Vapid:
    """Checks the headers of senders.

    url: base of the endpoints; its origin is the audience. max_age: seconds that `exp` may lie ahead. leeway: seconds
    by which the sender's clock and ours may differ. max_bytes: of an Authorization header. cache: how many good
    headers are remembered.
    """

    def __init__(
        self, url: str, *, max_age: int, leeway: int, max_bytes: int, cache: int, unix_time: Callable[[], float]
    ) -> None:
        self._audiences = audiences(url)
        self._max_age = max_age
        self._leeway = leeway
        self._max_bytes = max_bytes
        self._unix_time = unix_time
        # Authorization header, with the key behind it where that came in another -> (expiry, digest of the key).
        self._good: Recent[bytes, tuple[float, bytes]] = Recent(cache)
        self.verified = 0
        """Signatures that were checked and found good."""

    @property
    def cached(self) -> int:
        """How many good headers are remembered."""
        return len(self._good)

    def check(self, authorization: bytes, crypto_key: bytes = b"") -> bytes:
        """The digest of the sender's key (`key_digest`), from the two headers that may name it.

        Raises: VapidError.
        """
        good = self._good.get(authorization)
        if good is None:
            good = self._look_closely(authorization, crypto_key)
        if good[0] + self._leeway <= self._unix_time():
            raise VapidError("exp is in the past")
        return good[1]

    def _look_closely(self, authorization: bytes, crypto_key: bytes) -> tuple[float, bytes]:
        if len(authorization) > self._max_bytes or len(crypto_key) > self._max_bytes:
            raise VapidError("the Authorization or the Crypto-Key header is too long")
        scheme, _, rest = authorization.partition(b" ")
        scheme = scheme.lower()
        if scheme == b"vapid":
            found = parameters(rest)
            token, key = found.get(b"t", b""), found.get(b"k", b"")
            name = authorization
        elif scheme in (b"webpush", b"bearer"):
            token, key = rest.strip(), parameters(crypto_key).get(b"p256ecdsa", b"")
            # The rest of Crypto-Key is another in each message. No header contains a line feed.
            name = authorization + b"\n" + key
            if len(key) <= _KEY_CHARS and (good := self._good.get(name)) is not None:
                return good
        else:
            raise VapidError("the scheme of Authorization is neither vapid nor WebPush")
        if not token:
            raise VapidError("the JWT is missing")
        if not key:
            raise VapidError("the public key is missing")
        good = self._verify(token, key)
        self._good.put(name, good)
        return good

    def _verify(self, token: bytes, key: bytes) -> tuple[float, bytes]:
        """Expiry and digest of the key of a JWT: what is cheap to see comes first."""
        signed, _, last = token.rpartition(b".")
        first, _, middle = signed.partition(b".")
        try:
            signature = decode_base64url(last)
            head = _decode_head(decode_base64url(first))
            claims = _decode_claims(decode_base64url(middle))
        except VapidError:
            raise VapidError("the JWT is not three parts of base64url") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise VapidError("the JWT is not made of a header with alg, and claims with aud and exp") from None
        if head.alg != "ES256" or head.crit is not None:
            raise VapidError("the JWT is not signed with ES256 alone")
        if len(signature) != _SIGNATURE_BYTES:
            raise VapidError("the signature is not 64 bytes")
        named = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        if not any(audience.lower() in self._audiences for audience in named):
            raise VapidError("aud is not the origin of this endpoint")
        ahead = claims.exp - self._unix_time()
        if ahead + self._leeway <= 0:
            raise VapidError("exp is in the past")
        if ahead > self._max_age + self._leeway:
            raise VapidError(f"exp is more than {self._max_age} s ahead")
        raw, loaded = _load(key)
        half = _SIGNATURE_BYTES // 2
        pair = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        try:
            loaded.verify(pair, signed, _ES256)
        except InvalidSignature:
            raise VapidError("the signature was not made with this key") from None
        self.verified += 1
        return claims.exp, key_digest(raw)
