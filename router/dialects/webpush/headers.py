"""The headers of a push: TTL, topic, urgency, and how the body is encrypted."""

from __future__ import annotations

import re
from typing import Final

from router.dialects.webpush import responses
from router.dialects.webpush.vapid import parameters
from router.http.message import Response

_URGENCIES: Final = {b"very-low": 1, b"low": 2, b"normal": 3, b"high": 4}
NORMAL: Final = 3
"""The urgency of a push that names none."""
_BASE64URL: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_MAX_TOPIC: Final = 32
_INTEGER: Final = re.compile(rb"[+-]?[0-9]+")
_SAFE_IN_JSON: Final = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))
_PADDING: Final = re.compile(rb"(?<=[\w-])=+(?=[ \t]*(?:[,;]|$))")
AES128GCM: Final = '","headers":{"encoding":"aes128gcm"}'
"""What follows the data of such a body in the stored JSON."""


class Refused(Exception):
    """A push that is answered without asking the store."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def ttl_of(text: bytes, most: int) -> int:
    """The TTL of a push, at most `most` seconds. Raises: Refused."""
    if text.isdigit() and len(text) < 19:
        return min(int(text), most)
    text = text.strip()
    if not _INTEGER.fullmatch(text):
        raise Refused(responses.BAD_TTL)
    digits = text.lstrip(b"+-0")
    if not digits:
        return 0
    if text.startswith(b"-"):
        raise Refused(responses.NEGATIVE_TTL)
    return min(int(digits), most) if len(digits) < 19 else most


def topic_of(text: bytes | None) -> bytes | None:
    """The topic, if there is one. Raises: Refused."""
    if text is None:
        return None
    topic = text.strip()  # white space after a value is left to us
    if not 0 < len(topic) <= _MAX_TOPIC or topic.translate(None, _BASE64URL):
        raise Refused(responses.BAD_TOPIC)
    return topic


def urgency_of(text: bytes | None) -> int:
    """The urgency as a number: the higher, the more urgent. Raises: Refused."""
    level = NORMAL if text is None else _URGENCIES.get(text) or _URGENCIES.get(text.strip().lower())
    if level is None:
        raise Refused(responses.BAD_URGENCY)
    return level


def encoding_of(headers: dict[bytes, bytes], max_crypto_bytes: int) -> str:
    """What follows the data in the stored JSON: how the body is encrypted. Raises: Refused."""
    encoding = headers.get(b"content-encoding", b"")
    if encoding != b"aes128gcm":
        encoding = encoding.strip().lower()
    encryption, crypto_key = headers.get(b"encryption"), headers.get(b"crypto-key")
    if encoding == b"aes128gcm":
        if (encryption is not None and b"salt" in parameters(encryption)) or (
            crypto_key is not None and b"dh" in parameters(crypto_key)
        ):
            raise Refused(responses.NOT_OF_AES128GCM)
        return AES128GCM
    if encoding != b"aesgcm":
        raise Refused(responses.BAD_ENCODING)
    room = max_crypto_bytes - len(crypto_key or b"")
    kept = _kept(encryption or b"", b"salt", room, responses.BAD_ENCRYPTION)
    tail = f'","headers":{{"encoding":"aesgcm","encryption":"{kept}"'
    if crypto_key is not None:
        room = max_crypto_bytes
        tail += f',"crypto_key":"{_kept(crypto_key, b"dh", room, responses.BAD_CRYPTO_KEY)}"'
    return tail + "}"


def _kept(text: bytes, needed: bytes, room: int, refusal: Response) -> str:
    """A header of an aesgcm message as it goes to the device: without quotes and padding.

    Raises: Refused if the parameter that it needs is not there, or if it is too long or unfit for JSON.
    """
    if len(text) > room:
        raise Refused(refusal)
    text = _PADDING.sub(b"", text.replace(b'"', b""))
    value = parameters(text).get(needed, b"")
    if not value or value.translate(None, _BASE64URL) or text.translate(None, _SAFE_IN_JSON):
        raise Refused(refusal)
    return text.decode("ascii")
