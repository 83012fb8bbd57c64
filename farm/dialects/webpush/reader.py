"""What a WebPush session has in common before and after its hello: how commands are read and refused."""

from __future__ import annotations

from typing import Any

from farm.dialects import Close, Effects, Session
from farm.dialects.webpush.commands import EMPTY, PING, UNREADABLE, decode_command
from farm.dialects.webpush.shared import WebPushShared
from router.dialects.webpush.protocol import REFUSED, UNSUPPORTED


class Reader(Session):
    """What an identified device and another have in common: commands are read alike."""

    __slots__ = ()
    _dialect: WebPushShared

    def _refuse(self, reason: str, code: int = REFUSED) -> Effects:
        self._dialect.counters.commands_refused += 1
        return (Close(code, reason),)

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if binary:
            return self._refuse(UNSUPPORTED.text, UNSUPPORTED)
        command: Any
        try:
            command = decode_command(message)
        except UNREADABLE as error:
            if EMPTY.fullmatch(message) is None:
                return self._refuse(str(error))
            command = PING
        return self._handle(command, now)

    def _handle(self, command: Any, now: float) -> Effects:
        raise NotImplementedError
