"""A SimplePush connection before its hello."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farm.dialects import Attach, Become, Close, Effects
from farm.dialects.simplepush.commands import CommandError, Fields
from farm.dialects.simplepush.reader import Reader
from farm.dialects.simplepush.session import CHANNEL, RECORDED, SimplePushSession
from farm.dialects.simplepush.shared import SimplePushShared
from router.common import messages as m
from router.common.uuids import device_key, is_id, new_uaid
from router.dialects.simplepush.protocol import DEVICES, FRESH, MOVED, NO_HELLO

_NEVER: Final = float("-inf")


class Unidentified(Reader, msgspec.Struct, gc=False, eq=False):
    """A connection whose device has not said hello, or waits for the reply."""

    _dialect: SimplePushShared
    _last_ping: float = _NEVER

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        return self._command(message, now) if message else ()

    def _hello(self, command: dict[str, Any], now: float) -> Effects:
        fields = Fields(command)
        uaid = fields.text("uaid")
        channels = fields.required_list("channelids")
        if not uaid:
            return self._fresh()
        if not is_id(uaid):
            if self._dialect.options.malformed_uaid == FRESH:
                return self._fresh()
            raise CommandError(104)
        if len(channels) > self._dialect.options.max_channels:
            return self._fresh()
        needs = DEVICES if channels else ""
        key = device_key(uaid)
        return (Attach(key, needs, m.EVERYTHING, (uaid, key, len(channels))),)

    def _fresh(self) -> Effects:
        uaid = new_uaid()
        # Nothing can wait for a new uaid, so there is nothing to fetch.
        key = device_key(uaid)
        return (Attach(key, "", 0, (uaid, key, 0)),)

    def _ping(self, command: dict[str, Any], now: float) -> Effects:
        self._last_ping = self._pinged(self._last_ping, now)
        return self._pong()

    def _needs_hello(self, command: dict[str, Any], now: float) -> Effects:
        raise CommandError(201)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        uaid, key, channels = context
        if status == m.UNKNOWN:
            return self._fresh()
        if status == m.MOVED:
            return (Close(MOVED, MOVED.text),)
        if status != m.OK:
            return self._failed("hello")
        attached: m.Attached = payload
        # The key is the very object that the worker knows the device by: to make it again would cost its memory.
        session = SimplePushSession(
            self._dialect,
            key,
            uaid if uaid != key.hex() else None,
            self._last_ping,
            channels * CHANNEL + (attached.record is not None) * RECORDED,
        )
        return (Become(session), *session.identified(uaid, attached))

    def tick(self, silent: float) -> tuple[Effects, float]:
        self._dialect.counters.timeouts += 1
        return (Close(NO_HELLO, NO_HELLO.text),), 0


Unidentified._handlers = {
    "hello": Unidentified._hello,
    "register": Unidentified._needs_hello,
    "unregister": Unidentified._needs_hello,
    "ack": Unidentified._needs_hello,
    "ping": Unidentified._ping,
    "purge": Unidentified._purge,
}
