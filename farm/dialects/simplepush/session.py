"""A SimplePush device that has said hello: its channels, its updates and their acknowledgements."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from farm.dialects import REGISTERED, Call, DeviceSession, Effect, Effects, Tick
from farm.dialects.simplepush.commands import CommandError, Fields, check_channel, decode_ack, is_version, read_update
from farm.dialects.simplepush.reader import Reader
from farm.dialects.simplepush.shared import SimplePushShared
from router.common import messages as m
from router.common.item import Item
from router.common.uuids import is_id
from router.dialects.simplepush.protocol import DEVICES, NAME, TOO_MANY_CHANNELS

_NEVER: Final = float("-inf")
_encode = msgspec.json.Encoder().encode

RECORDED: Final = 1
_MORE: Final = 2
CHANNEL: Final = 4
"""One number holds whether the device's record is written, and beside it how many channels it has."""


class SimplePushSession(Reader, DeviceSession, msgspec.Struct, gc=False, eq=False):
    """A device that has said hello."""

    speaks: ClassVar[str] = NAME

    _dialect: SimplePushShared
    key: bytes
    _spelling: str | None = None  # the uaid, where it is not the key's plain digits
    _last_ping: float = _NEVER
    # RECORDED, _MORE if the store may hold what was not sent, and CHANNEL for each channel of its hello and each
    # register; a slot less
    _has: int = 0
    _unacked: dict[str, int] | None = None  # what was sent on this connection and not acknowledged

    def identified(self, uaid: str, attached: m.Attached) -> list[Effect]:
        """The device has been attached: the reply to its hello, and what waits for it."""
        effects: list[Effect] = [self._greet(uaid), *self._notify(attached.items)]
        if interval := self._dialect.options.pong_interval:
            effects.append(Tick(interval))
        record, today = attached.record, self._dialect.today()
        if record is not None and record != today:
            effects.append(m.Record(DEVICES, self.key, today, self._dialect.options.timeout_uaid))
        return effects

    # ------------------------------------------------------------------ from the device

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if not message:
            return ()
        if b'"ack"' in message:
            try:
                updates = decode_ack(message).updates
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # not an ack after all, or one that has to be looked at closely
            else:
                acks = [(u.channelID, u.version) for u in updates if is_id(u.channelID) and is_version(u.version)]
                if acks and len(acks) == len(updates):
                    return self._acknowledge(self.key, acks)
        return self._command(message, now)

    def _hello(self, command: dict[str, Any], now: float) -> Effects:
        fields = Fields(command)
        uaid = fields.text("uaid")
        fields.required_list("channelids")
        if uaid and uaid != self._uaid():
            raise CommandError(202)
        return (Call(m.Fetch(self.key, m.EVERYTHING), ("again", None)),)

    def _register(self, command: dict[str, Any], now: float) -> Effects:
        key = self.key
        channel = Fields(command).text("channelid")
        if not is_id(channel):
            raise CommandError(108)
        if self._has // CHANNEL >= self._dialect.options.max_channels:
            self._dialect.counters.commands_refused += 1
            reply = {
                "messageType": "register",
                "channelID": channel,
                "status": TOO_MANY_CHANNELS.status,
                "error": TOO_MANY_CHANNELS.text,
            }
            return (_encode(reply | {"reason": TOO_MANY_CHANNELS.text}),)
        if self._has & RECORDED:
            return self._registered(channel)
        ttl = self._dialect.options.timeout_uaid
        return (Call(m.Record(DEVICES, key, self._dialect.today(), ttl), ("register", channel)),)

    def _unregister(self, command: dict[str, Any], now: float) -> Effects:
        key = self.key
        channel = Fields(command).text("channelid")
        if not channel:
            raise CommandError(107)
        if self._unacked:
            self._unacked.pop(channel, None)
        if not is_id(channel):
            return self._unregistered(channel)
        if self._has >= CHANNEL:
            self._has -= CHANNEL
        return (Call(m.Drop(key, channel), ("unregister", channel)),)

    def _ack(self, command: dict[str, Any], now: float) -> Effects:
        key = self.key
        fields = Fields(command)
        updates, expired = fields.items("updates"), fields.items("expired")
        if not updates and not expired:
            raise CommandError(107)
        acks = [read_update(update) for update in updates]
        for channel in expired:
            check_channel(channel)
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
            self._has |= RECORDED
            return self._registered(subject)
        items: list[Item] = payload
        if kind == "again":
            return (self._greet(self._uaid()), *self._notify(items))
        if kind == "rest":
            return self.stored(items, now)
        return self._notify(items)

    def _registered(self, channel: str) -> Effects:
        self._dialect.counters.registers += 1
        self._has += CHANNEL
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


SimplePushSession._handlers = {
    "hello": SimplePushSession._hello,
    "register": SimplePushSession._register,
    "unregister": SimplePushSession._unregister,
    "ack": SimplePushSession._ack,
    "ping": SimplePushSession._ping,
    "purge": SimplePushSession._purge,
}
