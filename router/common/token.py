"""Push tokens: what an app server holds is the sealed address of one channel of one device.

A token is base64url, without padding, of: key hint (1 byte), nonce (12), ciphertext, tag (16), by AES-256-GCM
(NIST SP 800-38D). The purpose (the dialect's name) is the associated data, so that a token of one dialect is
nothing in another. The first key seals, every key opens: that is how keys are rotated.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from router.common.errors import MendableError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
MAX_TOKEN_CHARS = 1024
_NONCES_DRAWN = 256

_PADDING = (b"", b"===", b"==", b"=")
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_TO_URL = bytes.maketrans(b"+/", b"-_")


class TokenError(ValueError):
    """The token was not made by one of our keys for this purpose."""


class KeyFormatError(MendableError):
    """A configured key is not what `farm token-key` prints."""


def new_key() -> str:
    """A fresh key as text: 32 random bytes in base64url."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def parse_keys(text: str) -> list[bytes]:
    """Keys from a comma separated list, first the one that seals.

    Raises: KeyFormatError for anything that is not 32 bytes of base64url.
    """
    keys = []
    for part in filter(None, (p.strip() for p in text.replace("\n", ",").split(","))):
        try:
            whole = part if part.endswith("=") else part + "=" * (-len(part) % 4)  # as it is often copied
            key = base64.b64decode(whole.encode("ascii").translate(_TO_STANDARD), validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise KeyFormatError("a token key must be base64url text as `farm token-key` prints it") from error
        if len(key) != KEY_BYTES:
            raise KeyFormatError(
                f"a token key must be {KEY_BYTES} bytes, found {len(key)}; make one with `farm token-key`"
            )
        keys.append(key)
    return keys


class _Nonces:
    """Random nonces, drawn from the kernel many at a time: a call for each would cost as much as the sealing.

    Not for use by two threads at once. A forked child draws its own: one nonce for two texts would give both away.
    """

    def __init__(self) -> None:
        self._drawn: list[bytes] = []
        os.register_at_fork(after_in_child=self._drawn.clear)

    def next(self) -> bytes:
        if not self._drawn:
            block = os.urandom(_NONCES_DRAWN * NONCE_BYTES)
            self._drawn.extend(block[at : at + NONCE_BYTES] for at in range(0, len(block), NONCE_BYTES))
        return self._drawn.pop()


_nonces = _Nonces()


class Tokens:
    """Seals and opens tokens with a list of keys."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise KeyFormatError("at least one token key is needed")
        self._ciphers: dict[int, list[AESGCM]] = {}
        for key in keys:
            self._ciphers.setdefault(_hint(key), []).append(AESGCM(key))
        self._seal_hint = bytes([_hint(keys[0])])
        self._seal = AESGCM(keys[0])

    def seal(self, purpose: bytes, payload: bytes) -> str:
        """A token for this payload; every call gives another one."""
        nonce = _nonces.next()
        sealed = self._seal_hint + nonce + self._seal.encrypt(nonce, payload, purpose)
        return binascii.b2a_base64(sealed, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")

    def open(self, purpose: bytes, token: bytes) -> bytes:
        """The payload of a token.

        Raises: TokenError if it was not sealed by one of our keys for this purpose.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenError("token too long")
        try:
            if token.endswith(b"="):
                token = token.rstrip(b"=")
            sealed = binascii.a2b_base64(token.translate(_TO_STANDARD) + _PADDING[len(token) & 3], strict_mode=True)
        except binascii.Error as error:
            raise TokenError("token is not base64url") from error
        if len(sealed) <= NONCE_BYTES + TAG_BYTES:
            raise TokenError("token too short")
        for cipher in self._ciphers.get(sealed[0], ()):
            try:
                return cipher.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], purpose)
            except InvalidTag:
                continue
        raise TokenError("token was sealed by another key or altered")


def _hint(key: bytes) -> int:
    return blake2b(key, digest_size=1).digest()[0]
