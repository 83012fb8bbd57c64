"""Identifiers of devices and channels: UUID texts, and their compact forms.

Two spellings of a UUID are valid, 32 hexadecimal digits, or 36 characters with hyphens, in any case and of any
version (PushGo: ids.Valid). They are not normalised: two spellings are two identifiers. Each has exactly one compact
form, so that a token or a key is never read back as another spelling.
"""

from __future__ import annotations

import re
import uuid
from hashlib import blake2b

_VALID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_PLAIN = re.compile(r"[0-9a-f]{32}")
_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_id(text: str) -> bool:
    """Whether this is a UUID in one of the two spellings."""
    return _VALID.fullmatch(text) is not None


def pack_id(text: str) -> bytes:
    """A valid identifier in as few bytes as tell it from every other: 16 for lower case, hyphens; else its text."""
    if _CANONICAL.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    return text.encode("ascii")


def unpack_id(packed: bytes) -> str:
    """What `pack_id` was given."""
    if len(packed) == 16:
        digits = packed.hex()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return packed.decode("ascii")


def device_key(uaid: str) -> bytes:
    """The 16-byte address of a device: the bytes of a uaid as we spell it, a hash of any other spelling."""
    if _PLAIN.fullmatch(uaid):
        return bytes.fromhex(uaid)
    return blake2b(uaid.encode("ascii"), digest_size=16, person=b"farm device").digest()


def new_uaid() -> str:
    """A fresh uaid: a random UUIDv4 as 32 digits."""
    return uuid.uuid4().hex
