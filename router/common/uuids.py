"""Identifiers of devices and channels: UUID texts, and the compact keys of devices.

Two spellings of a UUID are valid, 32 hexadecimal digits, or 36 characters with hyphens, in any case and of any
version (PushGo: ids.Valid). They are not normalised: two spellings are two identifiers.
"""

from __future__ import annotations

import re
import uuid
from hashlib import blake2b

_VALID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_PLAIN = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether this is a UUID in one of the two spellings."""
    return _VALID.fullmatch(text) is not None


def device_key(uaid: str) -> bytes:
    """The 16-byte address of a device: the bytes of a uaid as we spell it, a hash of any other spelling."""
    if _PLAIN.fullmatch(uaid):
        return bytes.fromhex(uaid)
    return blake2b(uaid.encode("ascii"), digest_size=16, person=b"farm device").digest()


def new_uaid() -> str:
    """A fresh uaid: a random UUIDv4 as 32 digits."""
    return uuid.uuid4().hex
