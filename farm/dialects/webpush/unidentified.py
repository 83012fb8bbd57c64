"""A WebPush connection before its hello, and what reads the commands of both kinds of connection."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from farm.dialects import Attach, Become, Close, Effects
from farm.dialects.webpush.commands import Hello, named_broadcasts
from farm.dialects.webpush.reader import Reader
from farm.dialects.webpush.session import WebPushSession
from farm.dialects.webpush.shared import WebPushShared
from router.common import messages as m
from router.common.uuids import is_id, new_uaid
from router.dialects.webpush.protocol import DEVICES, MOVED, NO_HELLO, STORE_FAILED, device_address

_UAID: Final = re.compile(r"[0-9a-f]{32}")


class Unidentified(Reader, msgspec.Struct, gc=False, eq=False):
    """A connection whose device has not said hello, or waits for the reply."""

    _dialect: WebPushShared

    def _handle(self, command: Any, now: float) -> Effects:
        return self._hello(command) if type(command) is Hello else self._refuse("hello is expected first")

    def _hello(self, command: Hello) -> Effects:
        broadcasts = named_broadcasts(command.broadcasts)
        if fault := self._dialect.broadcasts.fault(broadcasts, None):
            return self._refuse(fault)
        if not all(map(is_id, command.channelIDs or ())):
            return self._refuse("a channel ID is a UUID")
        uaid = command.uaid or ""
        if _UAID.fullmatch(uaid) is None:
            return self._fresh(broadcasts)
        batch = self._dialect.options.batch
        key = device_address(uaid)
        return (Attach(key, DEVICES, batch, (uaid, key, broadcasts)),)

    def _fresh(self, broadcasts: dict[str, str]) -> Effects:
        uaid = new_uaid()
        # Nothing can wait for a new uaid, so there is nothing to fetch.
        key = device_address(uaid)
        return (Attach(key, "", 0, (uaid, key, broadcasts)),)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        uaid, key, broadcasts = context
        if status == m.UNKNOWN:
            return self._fresh(broadcasts)
        if status == m.MOVED:
            return (Close(MOVED, MOVED.text),)
        if status != m.OK:
            self._dialect.counters.commands_refused += 1
            return (Close(STORE_FAILED, STORE_FAILED.text),)
        attached: m.Attached = payload
        # The key is the very object that the worker knows the device by: to make it again would cost its memory.
        session = WebPushSession(self._dialect, key, _broadcast_change=self._dialect.broadcasts.changes)
        return (Become(session), *session.identified(uaid, broadcasts, attached))

    def tick(self, silent: float) -> tuple[Effects, float]:
        self._dialect.counters.timeouts += 1
        return (Close(NO_HELLO, NO_HELLO.text),), 0
