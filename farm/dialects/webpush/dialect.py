"""WebPush in a worker: what all of its sessions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from farm.coarse_time import CoarseTime
from farm.dialects import Context, Dialect
from farm.dialects.webpush.broadcasts import Broadcasts
from farm.dialects.webpush.commands import UNREADABLE, decode_anything
from farm.dialects.webpush.session import WebPushSession
from farm.dialects.webpush.unidentified import Unidentified
from farm.transports.request import Request
from router.common.last_seen import stamp
from router.dialects.webpush.protocol import WebPushOptions, base_url, channel_bytes, endpoint
from router.dialects.webpush.vapid import Recent, key_digest, public_key

SUBPROTOCOL: Final = "push-notification"


class WebPushDialect(Dialect):
    """What all sessions of a worker share."""

    def __init__(self, context: Context) -> None:
        options = context.settings.get(WebPushOptions)
        self.options = options
        self.counters = context.counters
        self.nacks: dict[int | None, int] = {301: 0, 302: 0, 303: 0, None: 0}
        self.unix_time = context.unix_time
        self.coarse_time = CoarseTime()
        self._broadcasts = Broadcasts(options, WebPushSession)
        self._keys: Recent[str, bytes] = Recent(options.key_cache)
        self._tokens = context.tokens
        self._base = base_url(context.settings)

    def counts(self) -> Mapping[str, float]:
        return {f"nacks_{code or 'other'}": count for code, count in self.nacks.items()}

    def subprotocol(self, offered: list[str]) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    def claims(self, first: bytes) -> bool:
        if b"use_webpush" not in first and not self.options.bare_hello:
            return False
        try:
            found = decode_anything(first)
        except UNREADABLE:
            return False
        if type(found) is not dict or found.get("messageType") != "hello":
            return False
        if found.get("use_webpush") is True:
            return True
        return self.options.bare_hello and found.get("use_webpush") is None and found.get("channelIDs") is None

    def opened(self, request: Request) -> Unidentified:
        return Unidentified(self)

    @property
    def first_tick(self) -> float:
        return self.options.hello_timeout

    @property
    def broadcasts(self) -> Broadcasts:
        return self._broadcasts

    def endpoint(self, device: bytes, channel: str, digest: bytes) -> str:
        """A push endpoint for this channel, with a fresh token; with a key's digest only its owner can push."""
        return endpoint(self._base, self._tokens, device, channel_bytes(channel), digest)

    def digest_of(self, key: str) -> bytes:
        """The digest of an app server's key. Nearly all devices register with one of a few. Raises: VapidError."""
        digest = self._keys.get(key)
        if digest is None:
            digest = key_digest(public_key(key.encode()))
            self._keys.put(key, digest)
        return digest

    def today(self) -> bytes:
        """The head of the record of a device that says hello now. A record with another head is renewed."""
        return stamp(self.unix_time(), self.options.timeout_uaid)
