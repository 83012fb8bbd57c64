"""What a SimplePush session has in common before and after its hello: how commands are read, answered and refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from farm.dialects import Close, Effects, Session
from farm.dialects.simplepush.commands import CommandError, Fields
from farm.dialects.simplepush.shared import SimplePushShared
from router.dialects.simplepush.protocol import ERRORS, NO_OBJECT, NOT_JSON, REFUSED, STORE_FAILED

_INVALID: Final = "Invalid Command"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Reader(Session):
    """Reads the commands of a device, identified or not."""

    __slots__ = ()
    _handlers: ClassVar[Mapping[str, Callable[[Any, dict[str, Any], float], Effects]]] = {}
    _dialect: SimplePushShared

    def _command(self, message: bytes, now: float) -> Effects:
        try:
            command = _decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # binary may hold anything
            return (Close(NOT_JSON, NOT_JSON.text),)
        if type(command) is not dict:
            return self._not_an_object(command)
        name = ""
        try:
            if not command:
                return self._handlers["ping"](self, command, now)
            kind = command.get("messageType")
            if kind is None:
                kind = Fields(command).get("messagetype")
            if kind is not None and type(kind) is not str:
                raise CommandError(101)
            name = (kind or "").lower()
            handler = self._handlers.get(name)
            if handler is None:
                raise CommandError(102)
            return handler(self, command, now)
        except CommandError as error:
            return self._refuse(message, name, error.number)

    def _not_an_object(self, command: object) -> Effects:
        self._dialect.counters.commands_refused += 1
        if type(command) is list:
            status, reason = ERRORS[101][:2]
            return (_encode({"status": status, "error": _INVALID, "reason": reason}), Close(REFUSED, reason))
        return (Close(NO_OBJECT, NO_OBJECT.text),)

    def _refuse(self, message: bytes, name: str, number: int) -> Effects:
        self._dialect.counters.commands_refused += 1
        status, text = ERRORS[number][:2]
        # Its members go back as they came: not all that can be read could be written again, such as a huge number.
        try:
            members = _decode_members(message)
        except RecursionError:  # it was nested just not too deeply
            return (Close(REFUSED, text),)
        reply: dict[str, Any] = {key: raw for key, raw in members.items() if key.lower() != "messagetype" or not name}
        if name:
            reply["messageType"] = name
        reply["status"] = status
        reply["error"] = _INVALID if status == 401 else text
        reply["reason"] = text
        return (_encode(reply), Close(REFUSED, text))

    def _pinged(self, last: float, now: float) -> float:
        """The device pings. Returns: when, to be kept. Raises: CommandError if its last ping was too short a time
        ago."""
        if now - last < self._dialect.options.min_ping_interval:
            self._dialect.counters.pings_too_many += 1
            raise CommandError(203)
        self._dialect.counters.pings += 1
        return self._dialect.coarse_time.of(now)

    def _pong(self) -> Effects:
        return (b'{"messageType":"ping","status":200}' if self._dialect.options.long_pongs else b"{}",)

    def _purge(self, command: dict[str, Any], now: float) -> Effects:
        return ()

    def _failed(self, kind: str) -> Effects:
        self._dialect.counters.commands_refused += 1
        status, text = ERRORS[402][:2]
        name = "ack" if kind in ("resend", "rest") else "hello" if kind == "again" else kind
        reply = {"messageType": name, "status": status, "error": text, "reason": text}
        return (_encode(reply), Close(STORE_FAILED, text))

    def _greet(self, uaid: str) -> bytes:
        self._dialect.counters.hellos += 1
        return b'{"messageType":"hello","uaid":"%s","status":200}' % uaid.encode()
