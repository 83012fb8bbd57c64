"""The key of an app server, and the VAPID header (RFC 8292) that it sends with every push."""

import json
import time
from base64 import urlsafe_b64encode
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.load.dialect import Signer

LIFE_SECONDS: Final = 12 * 3600
"""Of a header: half of what RFC 8292 allows; no run of pushes takes longer."""
SUBJECT: Final = "mailto:bench@example.org"


class VapidSigner(Signer):
    """A key pair, made for one run. `public`: the point, in base64url without padding, as devices register it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public = _text(self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    def authorization(self, origin: str) -> str:
        """The Authorization header's value for pushes to this origin (`http://host:port`), signed now."""
        claims = {"aud": origin, "exp": int(time.time()) + LIFE_SECONDS, "sub": SUBJECT}
        signed = f"{_json({'typ': 'JWT', 'alg': 'ES256'})}.{_json(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"vapid t={signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}, k={self.public}"


def _json(value: dict[str, object]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
