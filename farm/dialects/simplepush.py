"""SimplePush, device side: hello, register, unregister, ack, ping, purge, notification.

Source: PushGo 1.5.0 and its stand-alone test suite, which judges where they differ. JSON keys are matched without
regard to case, and null stands for nothing; replies carry the messageType in lower case. Every error is answered with
the request's own object plus `status`, `error` and `reason`, and then closes the connection. Only a register beyond
`max_channels` is refused and nothing else, because the device is to go on with the channels that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Literal

import msgspec

from farm.coarse_time import CoarseTime
from farm.dialects import (
    REGISTERED,
    Attach,
    Become,
    Call,
    Close,
    Context,
    DeviceSession,
    DeviceSide,
    Dialect,
    Effect,
    Effects,
    Session,
    Tick,
)
from farm.transports.request import Request
from router.common import messages as m
from router.common.item import Item
from router.common.last_seen import stamp
from router.common.settings import EndpointOptions
from router.common.uuids import device_key, is_id, new_uaid
from router.dialects.simplepush import SPEC
from router.dialects.simplepush.protocol import (
    DEVICES,
    ERRORS,
    FRESH,
    MOVED,
    NO_HELLO,
    NO_OBJECT,
    NOT_JSON,
    PURPOSE,
    REFUSED,
    STORE_FAILED,
    TOO_MANY_CHANNELS,
    SimplePushOptions,
)

SUBPROTOCOL: Final = "push-notification"
_INVALID: Final = "Invalid Command"
_NEVER: Final = float("-inf")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Update(msgspec.Struct, frozen=True, gc=False):
    """One update of an ack, as every device spells it."""

    channelID: str
    version: int


class _Ack(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The ack of a device that says nothing unusual: by far the most frequent command."""

    messageType: Literal["ack"]
    updates: list[_Update]


_decode_ack = msgspec.json.Decoder(_Ack).decode

_RECORDED: Final = 1
_MORE: Final = 2
_CHANNEL: Final = 4
"""One number holds whether the device's record is written, and beside it how many channels it has."""


class CommandError(Exception):
    """A command that is answered with an error of the table."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class SimplePushDialect(Dialect):
    """What all sessions of a worker share."""

    def __init__(self, context: Context) -> None:
        options = context.settings.get(SimplePushOptions)
        self.options = options
        self.counters = context.counters
        self.unix_time = context.unix_time
        self.coarse_time = CoarseTime()
        self._tokens = context.tokens
        self._endpoint = context.settings.get(EndpointOptions).url + "/update/"

    def subprotocol(self, offered: list[str]) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    @property
    def first_tick(self) -> float:
        return self.options.hello_timeout

    def opened(self, request: Request) -> Unidentified:
        return Unidentified(self)

    def endpoint(self, device: bytes, channel: str) -> str:
        """A push endpoint for this channel, with a fresh token."""
        return self._endpoint + self._tokens.seal(PURPOSE, device + channel.encode())

    def today(self) -> bytes:
        """What stands in the record of a device that says hello now. Once it is another, the record is renewed."""
        return stamp(self.unix_time(), self.options.timeout_uaid)


class _Commands(Session):
    """What a device may say, identified or not."""

    __slots__ = ()
    _handlers: ClassVar[Mapping[str, Callable[[Any, dict[str, Any], float], Effects]]] = {}
    _dialect: SimplePushDialect

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
                kind = _Fields(command).get("messagetype")
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
        """It pings. Returns: when, to be remembered. Raises: CommandError if the last one was just now."""
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


class Unidentified(_Commands, msgspec.Struct, gc=False, eq=False):
    """A connection whose device has not said hello, or waits for what comes of it."""

    _dialect: SimplePushDialect
    _last_ping: float = _NEVER

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        return self._command(message, now) if message else ()

    def _hello(self, command: dict[str, Any], now: float) -> Effects:
        fields = _Fields(command)
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
        # Nothing can wait for a uaid that nobody has heard of yet, so there is nothing to fetch.
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
        record = attached.record
        # The key is the very object that the worker knows the device by: to make it again would cost its memory.
        session = SimplePushSession(
            self._dialect,
            key,
            uaid if uaid != key.hex() else None,
            self._last_ping,
            channels * _CHANNEL + (record is not None) * _RECORDED,
        )
        effects: list[Effect] = [Become(session), self._greet(uaid), *session._notify(attached.items)]
        if interval := self._dialect.options.pong_interval:
            effects.append(Tick(interval))
        if record is not None and record != self._dialect.today():
            today, ttl = self._dialect.today(), self._dialect.options.timeout_uaid
            effects.append(m.Record(DEVICES, key, today, ttl))
        return effects

    def tick(self, silent: float) -> tuple[Effects, float]:
        self._dialect.counters.timeouts += 1
        return (Close(NO_HELLO, NO_HELLO.text),), 0


class SimplePushSession(_Commands, DeviceSession, msgspec.Struct, gc=False, eq=False):
    """A device that has said hello."""

    _dialect: SimplePushDialect
    key: bytes
    _spelling: str | None = None  # the uaid, where it is not the key's plain digits
    _last_ping: float = _NEVER
    # _RECORDED, _MORE if the store may hold what was not sent, and _CHANNEL for each channel of its hello and each
    # register; a slot less
    _has: int = 0
    _unacked: dict[str, int] | None = None  # what was sent on this connection and not acknowledged

    # ------------------------------------------------------------------ from the device

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if not message:
            return ()
        if b'"ack"' in message:
            try:
                updates = _decode_ack(message).updates
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # not an ack after all, or one that has to be looked at closely
            else:
                acks = [(u.channelID, u.version) for u in updates if is_id(u.channelID) and _is_version(u.version)]
                if acks and len(acks) == len(updates):
                    return self._acknowledge(self.key, acks)
        return self._command(message, now)

    def _hello(self, command: dict[str, Any], now: float) -> Effects:
        fields = _Fields(command)
        uaid = fields.text("uaid")
        fields.required_list("channelids")
        if uaid and uaid != self._uaid():
            raise CommandError(202)
        return (Call(m.Fetch(self.key, m.EVERYTHING), ("again", None)),)

    def _register(self, command: dict[str, Any], now: float) -> Effects:
        key = self.key
        channel = _Fields(command).text("channelid")
        if not is_id(channel):
            raise CommandError(108)
        if self._has // _CHANNEL >= self._dialect.options.max_channels:
            self._dialect.counters.commands_refused += 1
            reply = {
                "messageType": "register",
                "channelID": channel,
                "status": TOO_MANY_CHANNELS.status,
                "error": TOO_MANY_CHANNELS.text,
            }
            return (_encode(reply | {"reason": TOO_MANY_CHANNELS.text}),)
        if self._has & _RECORDED:
            return self._registered(channel)
        ttl = self._dialect.options.timeout_uaid
        return (Call(m.Record(DEVICES, key, self._dialect.today(), ttl), ("register", channel)),)

    def _unregister(self, command: dict[str, Any], now: float) -> Effects:
        key = self.key
        channel = _Fields(command).text("channelid")
        if not channel:
            raise CommandError(107)
        if self._unacked:
            self._unacked.pop(channel, None)
        if not is_id(channel):
            return self._unregistered(channel)
        if self._has >= _CHANNEL:
            self._has -= _CHANNEL
        return (Call(m.Drop(key, channel), ("unregister", channel)),)

    def _ack(self, command: dict[str, Any], now: float) -> Effects:
        key = self.key
        fields = _Fields(command)
        updates, expired = fields.items("updates"), fields.items("expired")
        if not updates and not expired:
            raise CommandError(107)
        acks = [_acked(update) for update in updates]
        for channel in expired:
            _check_channel(channel)
        return self._acknowledge(key, acks)

    def _acknowledge(self, key: bytes, acks: list[tuple[str, int]]) -> Effects:
        self._dialect.counters.acks += 1
        if (unacked := self._unacked) is not None:
            for channel, version in acks:
                if unacked.get(channel, version + 1) <= version:
                    del unacked[channel]
            if not unacked:
                self._unacked = None
        real = [ack for ack in acks if ack[1] >= 0]  # none is below 0: the router would refuse all that are with it
        effects: list[Effect] = [m.Ack(key, real)] if real else []
        if self._dialect.options.resend_on_ack:
            effects.append(Call(m.Fetch(key, m.EVERYTHING), ("resend", None)))
        elif self._has & _MORE and len(self._unacked or ()) <= self._dialect.options.max_unacked // 2:
            self._has &= ~_MORE
            effects.append(Call(m.Fetch(key, m.EVERYTHING), ("rest", None)))
        return effects

    def _ping(self, command: dict[str, Any], now: float) -> Effects:
        self._last_ping = self._pinged(self._last_ping, now)
        return self._pong()

    # ------------------------------------------------------------------ from the router

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        kind, subject = context
        if kind == "unregister":
            return self._unregistered(subject)  # whatever became of it, as PushGo
        if status != m.OK:
            return self._failed(kind)
        if kind == "register":
            self._has |= _RECORDED
            return self._registered(subject)
        items: list[Item] = payload
        if kind == "again":
            return (self._greet(self._uaid()), *self._notify(items))
        if kind == "rest":
            return self.stored(items, now)
        return self._notify(items)

    def _registered(self, channel: str) -> Effects:
        self._dialect.counters.registers += 1
        self._has += _CHANNEL
        endpoint = self._dialect.endpoint(self.key, channel)
        reply = {
            "messageType": "register",
            "uaid": self._uaid(),
            "status": 200,
            "channelID": channel,
            "pushEndpoint": endpoint,
        }
        return (_encode(reply), REGISTERED)

    def _unregistered(self, channel: str) -> Effects:
        self._dialect.counters.unregisters += 1
        return (_encode({"messageType": "unregister", "status": 200, "channelID": channel}),)

    def _notify(self, items: list[Item]) -> list[Effect]:
        if not items:
            return []
        now = int(self._dialect.unix_time())
        updates = [{"channelID": item.slot, "version": item.version or now} for item in items]
        self._sent((item.slot, item.version) for item in items)
        self._dialect.counters.updates_sent += len(items)
        return [_encode({"messageType": "notification", "updates": updates})]

    def _sent(self, updates: Any) -> None:
        if self._unacked is None:
            self._unacked = {}
        self._unacked.update(updates)

    def delivered(self, slot: str, version: int, body: str | None) -> bytes | None:
        unacked = self._unacked
        if unacked is None:
            self._unacked = {slot: version}
        elif slot in unacked or len(unacked) < self._dialect.options.max_unacked:
            unacked[slot] = version
        else:
            self._has |= _MORE
            return None
        self._dialect.counters.updates_sent += 1
        if body is None:
            return b'{"messageType":"notification","updates":[{"channelID":"%s","version":%d}]}' % (
                slot.encode(),
                version,
            )
        return b'{"messageType":"notification","updates":[{"channelID":"%s","version":%d,"data":%s}]}' % (
            slot.encode(),
            version,
            _encode(body),
        )

    def stored(self, items: list[Item], now: float) -> Effects:
        # Nothing older follows what was sent, which may have been refused by the store: then it holds the older one.
        sent = self._unacked or {}
        return self._notify([item for item in items if sent.get(item.slot, -1) < item.version])

    def tick(self, silent: float) -> tuple[Effects, float]:
        interval = self._dialect.options.pong_interval
        if not interval:
            return (), 0
        if silent < interval:
            return (), interval - silent
        return (b"{}",), interval

    def _uaid(self) -> str:
        return self._spelling or self.key.hex()


class _Fields:
    """A command's fields by their names in lower case, but for those that are null."""

    __slots__ = ("get",)

    def __init__(self, command: dict[str, Any]) -> None:
        self.get = {key.lower(): value for key, value in command.items() if value is not None}.get

    def text(self, name: str) -> str:
        """A text, empty if it is absent. Raises: CommandError."""
        value = self.get(name, "")
        if type(value) is not str:
            raise CommandError(108)
        return value

    def items(self, name: str) -> list[Any]:
        """A list, empty if it is absent. Raises: CommandError."""
        value = self.get(name, [])
        if type(value) is not list:
            raise CommandError(108)
        return value

    def required_list(self, name: str) -> list[Any]:
        """A list that must be there, if only an empty one. Raises: CommandError."""
        if self.get(name) is None:
            raise CommandError(107)
        return self.items(name)


def _acked(update: object) -> tuple[str, int]:
    if type(update) is not dict:
        raise CommandError(108)
    channel, version = update.get("channelID"), update.get("version")
    if channel is None or version is None:
        fields = _Fields(update)
        channel, version = fields.get("channelid", ""), fields.get("version", 0)
    if type(version) is not int or not _is_version(version):
        raise CommandError(108)
    return _check_channel(channel), version


def _is_version(number: int) -> bool:
    return -(2**63) <= number < 2**63


def _check_channel(channel: object) -> str:
    if type(channel) is not str:
        raise CommandError(108)
    if not is_id(channel):
        raise CommandError(106)
    return channel


Unidentified._handlers = {
    "hello": Unidentified._hello,
    "register": Unidentified._needs_hello,
    "unregister": Unidentified._needs_hello,
    "ack": Unidentified._needs_hello,
    "ping": Unidentified._ping,
    "purge": Unidentified._purge,
}
SimplePushSession._handlers = {
    "hello": SimplePushSession._hello,
    "register": SimplePushSession._register,
    "unregister": SimplePushSession._unregister,
    "ack": SimplePushSession._ack,
    "ping": SimplePushSession._ping,
    "purge": SimplePushSession._purge,
}


SIDE: Final = DeviceSide(
    spec=SPEC,
    make=SimplePushDialect,
    paths=("/",),
    rank=100,  # it takes what no other dialect on its path claims
)
