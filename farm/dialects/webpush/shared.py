"""WebPush in a worker: what all of its sessions share."""

from __future__ import annotations

from collections.abc import Mapping

from farm.coarse_time import CoarseTime
from farm.dialects import Context, Dialect
from farm.dialects.webpush.broadcasts import Broadcasts
from router.common.last_seen import stamp
from router.dialects.webpush.protocol import WebPushOptions, base_url, channel_bytes, endpoint
from router.dialects.webpush.vapid import Recent, key_digest, public_key


class WebPushShared(Dialect):
    """The part of the dialect that its sessions refer to."""

    def __init__(self, context: Context, broadcasts: Broadcasts) -> None:
        options = context.settings.get(WebPushOptions)
        self.options = options
        self.counters = context.counters
        self.nacks: dict[int | None, int] = {301: 0, 302: 0, 303: 0, None: 0}
        self.unix_time = context.unix_time
        self.coarse_time = CoarseTime()
        self._broadcasts = broadcasts
        self._keys: Recent[str, bytes] = Recent(options.key_cache)
        self._tokens = context.tokens
        self._base = base_url(context.settings)

    def counts(self) -> Mapping[str, float]:
        return {f"nacks_{code or 'other'}": count for code, count in self.nacks.items()}

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
