"""An app server's VAPID key: it signs JWTs as senders do, and as they should not."""

import base64
import itertools
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_secrets = itertools.count(0x5EED0000000000000000000000000001)  # the same keys in each run, so tests keep their names

HEADER = {"typ": "JWT", "alg": "ES256"}


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Sender:
    """One key. `curve` other than P-256 only to be refused."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        self._key = ec.derive_private_key(next(_secrets), curve or ec.SECP256R1())
        self.raw = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.compressed = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        self.public = b64(self.raw)

    def sign(self, text: bytes) -> bytes:
        """An ES256 signature: r and s, 32 bytes each."""
        r, s = decode_dss_signature(self._key.sign(text, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token(self, claims: Any, header: Any = HEADER) -> str:
        """A JWT. Header and claims may be bytes, to be signed as they are."""
        parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
        signed = ".".join(b64(part) for part in parts)
        return f"{signed}.{b64(self.sign(signed.encode()))}"

    def vapid(self, claims: Any, header: Any = HEADER) -> bytes:
        """The Authorization header of RFC 8292."""
        return f"vapid t={self.token(claims, header)}, k={self.public}".encode()
