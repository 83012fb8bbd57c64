"""Pusher's signatures: HMAC-SHA256 with the secret of an application, in hexadecimal digits."""

from __future__ import annotations

import hmac
from collections.abc import Iterable


def socket_signature(secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """What lets a socket into a private channel; with `channel_data`, the text as it was sent, into a presence one."""
    parts = (socket_id, channel) if channel_data is None else (socket_id, channel, channel_data)
    return _signature(secret, ":".join(parts))


def user_signature(secret: str, socket_id: str, user_data: str) -> str:
    """What lets a socket sign in as a user."""
    return _signature(secret, f"{socket_id}::user::{user_data}")


def request_signature(secret: str, method: str, path: str, parameters: Iterable[tuple[str, str]]) -> str:
    """What an app server signs its request with: path as it was sent, parameters decoded; its own is left out."""
    found = sorted((name.lower(), value) for name, value in parameters if name.lower() != "auth_signature")
    return _signature(secret, "\n".join((method, path, "&".join(f"{name}={value}" for name, value in found))))


def body_signature(secret: str, body: bytes) -> str:
    """What a webhook is signed with."""
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), body, "sha256").hex()


def _signature(secret: str, text: str) -> str:
    return body_signature(secret, text.encode("utf-8", "surrogatepass"))


def same(given: str, expected: str) -> bool:
    """Whether two signatures are the same; takes the same time wherever they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))
