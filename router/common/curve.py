"""Keys of a cluster: every host has the same secret, from which the key pairs of CURVE (RFC 26/CurveZMQ) follow.

A server's public key is given to nobody either: who does not have the secret cannot even begin a handshake that the
server answers. Beside that only clients with a key pair of ours are let in (`router.gatekeeper`).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from router.common.cluster_settings import ClusterOptions
from router.common.errors import MendableError
from router.common.files import read_at_most
from router.common.options import Settings

KEY_BYTES: Final = 32
MAX_KEYS: Final = 2
DOMAIN: Final = b"farm"
"""Of ZAP (RFC 27): sockets that have it ask who may come in."""
_FILE_BYTES: Final = 4096
_ID_BYTES: Final = 8
_REMEDY: Final = "make one with `farm cluster-key`, and give the same to all hosts"

_Socket = zmq.Socket[bytes]


class ClusterKeyError(MendableError):
    """A key of the cluster is missing, or is none."""


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """What follows from one secret. Keys are Z85 texts, as zmq takes them."""

    id: str
    """A fingerprint that may be shown."""
    server_public: bytes = field(repr=False)
    server_secret: bytes = field(repr=False)
    client_public: bytes = field(repr=False)
    client_secret: bytes = field(repr=False)


def new_key() -> str:
    """A fresh secret as text: 32 random bytes in base64url."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def derive(secret: bytes) -> ClusterKey:
    """The keys that follow from a secret."""
    server, client = _pair(secret, b"farm-server"), _pair(secret, b"farm-client")
    return ClusterKey(_hash(secret, b"farm-key-id", _ID_BYTES).hex(), *server, *client)


def parse(text: str) -> list[ClusterKey]:
    """One key or two, with a comma or a line's end between them; the first is served.

    Raises: ClusterKeyError.
    """
    keys = []
    for part in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        try:
            secret = base64.b64decode(part.rstrip("=") + "=", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise ClusterKeyError(f"a key of a cluster is {KEY_BYTES} bytes in base64url: {_REMEDY}")
        keys.append(derive(secret))
    if len(keys) > MAX_KEYS:
        raise ClusterKeyError(f"{len(keys)} keys of a cluster are too many: the new one and the old one at most")
    return keys


def load(settings: Settings) -> list[ClusterKey]:
    """The keys of the settings, or of the file that they name; the first is served.

    Raises: ClusterKeyError, FileError.
    """
    options = settings.get(ClusterOptions)
    if options.key and options.key_file:
        raise ClusterKeyError("cluster.key and cluster.key_file are both given: leave one out")
    if options.key_file:
        path = Path(options.key_file)
        try:
            text = read_at_most(path, _FILE_BYTES).decode("ascii")
            keys = parse(text)
        except (UnicodeDecodeError, ClusterKeyError) as error:
            why = error if isinstance(error, ClusterKeyError) else f"is not text: {_REMEDY}"
            raise ClusterKeyError(f"cluster.key_file: {path}: {why}") from None
        if not keys:
            raise ClusterKeyError(f"cluster.key_file: {path} holds no key: {_REMEDY}")
        return keys
    if not (keys := parse(options.key)):
        raise ClusterKeyError(f"cluster.enabled needs cluster.key: {_REMEDY}")
    return keys


def serve(socket: _Socket, key: ClusterKey) -> None:
    """What is bound after this is a server's end of CURVE, for clients that the gatekeeper lets in."""
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # nobody comes in while there is no gatekeeper
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.server_secret)


def connect(socket: _Socket, key: ClusterKey) -> None:
    """What is connected after this is a client's end of CURVE."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, key.server_public)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, key.client_public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.client_secret)


def by_id(keys: Sequence[ClusterKey]) -> Mapping[str, ClusterKey]:
    """The keys by their fingerprints."""
    return {key.id: key for key in keys}


def _pair(secret: bytes, person: bytes) -> tuple[bytes, bytes]:
    private = z85.encode(_hash(secret, person, KEY_BYTES))
    return zmq.curve_public(private), private


def _hash(secret: bytes, person: bytes, size: int) -> bytes:
    return blake2b(key=secret, person=person, digest_size=size).digest()
