"""SimplePush in a worker: what all of its sessions share."""

from __future__ import annotations

from farm.coarse_time import CoarseTime
from farm.dialects import Context, Dialect
from router.common.last_seen import stamp
from router.common.settings import EndpointOptions
from router.dialects.simplepush.protocol import PURPOSE, SimplePushOptions


class SimplePushShared(Dialect):
    """The part of the dialect that its sessions refer to."""

    def __init__(self, context: Context) -> None:
        options = context.settings.get(SimplePushOptions)
        self.options = options
        self.counters = context.counters
        self.unix_time = context.unix_time
        self.coarse_time = CoarseTime()
        self._tokens = context.tokens
        self._endpoint = context.settings.get(EndpointOptions).url + "/update/"

    def endpoint(self, device: bytes, channel: str) -> str:
        """A push endpoint for this channel, with a fresh token."""
        return self._endpoint + self._tokens.seal(PURPOSE, device + channel.encode())

    def today(self) -> bytes:
        """The content of the record of a device that says hello now. A record with another content is renewed."""
        return stamp(self.unix_time(), self.options.timeout_uaid)
