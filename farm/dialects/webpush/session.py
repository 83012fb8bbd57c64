"""A WebPush device that has said hello: its channels, its messages and their acknowledgements, its broadcasts."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, ClassVar, Final

import msgspec

from farm.dialects import REGISTERED, Call, Close, DeviceSession, Effect, Effects
from farm.dialects.webpush.broadcasts import NOT_FOLLOWED, Following
from farm.dialects.webpush.commands import (
    Ack,
    BroadcastSubscribe,
    Hello,
    Nack,
    Ping,
    Register,
    Unregister,
    Urgency,
    named_broadcasts,
)
from farm.dialects.webpush.reader import Reader
from farm.dialects.webpush.replies import broadcast, hello, notification, registered, unregistered
from farm.dialects.webpush.shared import WebPushShared
from router.common import messages as m
from router.common.id_set import HEAD_BYTES, ids
from router.common.item import Item
from router.dialects.webpush.protocol import (
    BAD_KEY,
    DEVICES,
    NAME,
    NO_URGENCY,
    NOT_DONE,
    STORE_FAILED,
    TOO_MANY_CHANNELS,
    TOO_MANY_PINGS,
    channel_bytes,
    channel_of,
    parse_wire,
)
from router.dialects.webpush.vapid import VapidError

_NEVER: Final = float("-inf")
_NOT_IMPLEMENTED: Final = b'{"messageType":"urgency","status":%d}' % NO_URGENCY.status
_by_slot = itemgetter(0)


class Flow:
    """What is under way to one device."""

    __slots__ = ("more", "unacked")

    def __init__(self) -> None:
        self.unacked: dict[str, int] = {}  # what was sent on this connection and not acknowledged: slot -> version
        self.more = False  # the store may hold something that was not sent


class WebPushSession(Reader, DeviceSession, msgspec.Struct, gc=False, eq=False):
    """A device that has said hello."""

    speaks: ClassVar[str] = NAME

    _dialect: WebPushShared
    key: bytes
    _flow: Flow | None = None  # only while something is under way
    _follows: Following | None = None
    _broadcast_change: int = 0  # the number of the last change of broadcasts that it was sent
    _last_ping: float = _NEVER

    def identified(self, uaid: str, broadcasts: dict[str, str], attached: m.Attached) -> list[Effect]:
        """The device has been attached: the reply to its hello, and what waits for it."""
        items, record = attached.items, attached.record
        self._dialect.counters.hellos += 1
        effects: list[Effect] = [hello(uaid, self._follow(broadcasts))]
        if items:
            effects += self._take(items, len(items), self._full(items))
            effects += self._next()
        if record is not None and record[:HEAD_BYTES] != self._dialect.today():
            # Not written as it was read: an older connection of the device may be about to change it.
            effects += (self._set_add(member, 0) for member in ids(record)[:1])
        return effects

    # ------------------------------------------------------------------ from the device

    def _handle(self, command: Any, now: float) -> Effects:
        return _COMMANDS[type(command)](self, command, now)

    def _hello_again(self, command: Hello, now: float) -> Effects:
        return self._refuse("hello has been said")

    def _register(self, command: Register, now: float) -> Effects:
        channel, digest = command.channelID, b""
        if command.key is not None:
            try:
                digest = self._dialect.digest_of(command.key)
            except VapidError as error:
                return (registered(channel, BAD_KEY.status, str(error)),)
        request = self._set_add(channel_bytes(channel), self._dialect.options.max_channels)
        return (Call(request, ("register", (channel, digest))),)

    def _set_add(self, member: bytes, most: int) -> m.SetAdd:
        """Writes the device's record, with this channel in it, and keeps it for a while from now on."""
        return m.SetAdd(DEVICES, self.key, member, self._dialect.today(), self._dialect.options.timeout_uaid, most)

    def _unregister(self, command: Unregister, now: float) -> Effects:
        channel = command.channelID
        return (Call(m.SetRemove(DEVICES, self.key, channel_bytes(channel)), ("unregister", channel)),)

    def _ack(self, command: Ack, now: float) -> Effects:
        options = self._dialect.options
        most = max(options.max_unacked, options.batch)
        if len(command.updates) > most:
            return self._refuse(f"more than {most} updates in one ack, of which no more are ever under way")
        self._dialect.counters.acks += 1
        flow = self._flow
        unacked = {} if flow is None else flow.unacked
        acks = []
        for update in command.updates:
            slot = f":{update.version}:{update.channelID}"
            if (number := unacked.get(slot)) is not None:  # the usual: as it was sent, and so well formed
                acks.append((slot, number))
            elif (found := parse_wire(update.channelID, update.version)) is not None:
                acks.append(found)
        if not acks:
            return ()
        effects: list[Effect] = [m.Ack(self.key, acks)]
        if flow is not None:
            for slot, version in acks:
                if unacked.get(slot, version + 1) <= version:
                    del unacked[slot]
            effects += self._next()
        return effects

    def _nack(self, command: Nack, now: float) -> Effects:
        """It reports what went wrong in the page; the message was acknowledged."""
        nacks = self._dialect.nacks
        nacks[command.code if command.code in nacks else None] += 1
        return ()

    def _subscribe(self, command: BroadcastSubscribe, now: float) -> Effects:
        broadcasts = named_broadcasts(command.broadcasts)
        if fault := self._dialect.broadcasts.fault(broadcasts, self._follows):
            return self._refuse(fault)
        changed = self._follow(broadcasts)
        return (broadcast(changed),) if changed else ()

    def _urgency(self, command: Urgency, now: float) -> Effects:
        return (_NOT_IMPLEMENTED,)  # it goes on receiving everything

    def _ping(self, command: Ping, now: float) -> Effects:
        if now - self._last_ping < self._dialect.options.min_ping_interval:
            self._dialect.counters.pings_too_many += 1
            return self._refuse(TOO_MANY_PINGS.text, TOO_MANY_PINGS)
        self._last_ping = self._dialect.coarse_time.of(now)
        self._dialect.counters.pings += 1
        return (b"{}",)

    # ------------------------------------------------------------------ from the router

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        kind, subject = context
        if kind == "register":
            return self._register_replied(subject, status)
        if kind == "unregister":
            if status != m.OK:
                return (unregistered(subject, NOT_DONE.status),)
            # What waits of the channel goes too. Nothing more can come: its endpoint is gone.
            return (Call(m.Fetch(self.key, m.EVERYTHING), ("forget", subject)),)
        if kind == "forget":
            return self._forget(subject, status, payload)
        if status != m.OK:
            return (Close(STORE_FAILED, STORE_FAILED.text),)
        items: list[Item] = payload
        return [*self._take(items, len(items), self._full(items)), *self._next()]

    def _register_replied(self, subject: tuple[str, bytes], status: int) -> Effects:
        channel, digest = subject
        if status == m.FULL:
            return (registered(channel, TOO_MANY_CHANNELS.status, TOO_MANY_CHANNELS.text),)
        if status != m.OK:
            return (registered(channel, NOT_DONE.status, ""),)
        self._dialect.counters.registers += 1
        return (registered(channel, 200, self._dialect.endpoint(self.key, channel, digest)), REGISTERED)

    def _forget(self, channel: str, status: int, items: list[Item]) -> Effects:
        if status != m.OK:
            return (unregistered(channel, NOT_DONE.status),)
        self._dialect.counters.unregisters += 1
        effects: list[Effect] = [unregistered(channel, 200)]
        waiting = [(item.slot, item.version) for item in items if _is_of(item.slot, channel)]
        if waiting:
            effects.insert(0, m.Ack(self.key, waiting))
        if (flow := self._flow) is not None:
            for slot in [slot for slot in flow.unacked if _is_of(slot, channel)]:
                del flow.unacked[slot]
            effects += self._next()
        return effects

    def delivered(self, slot: str, version: int, body: str | None) -> bytes | None:
        flow = self._flow
        if flow is None:
            flow = self._flow = Flow()
        elif (sent := flow.unacked.get(slot, -1)) >= version:
            return None  # it was sent, or what replaces it: nothing older follows
        elif sent < 0 and len(flow.unacked) >= self._dialect.options.max_unacked:
            flow.more = True
            return None
        flow.unacked[slot] = version
        self._dialect.counters.updates_sent += 1
        return notification(slot, version, body)

    def stored(self, items: list[Item], now: float) -> Effects:
        under_way = 0 if self._flow is None else len(self._flow.unacked)
        # A call may be open: so none is made here, and what has no room waits for the acks of the rest.
        items.sort(key=_by_slot)
        effects = self._take(items, self._dialect.options.batch - under_way, False)
        self._rest()
        return effects

    def _full(self, items: list[Item]) -> bool:
        return len(items) >= self._dialect.options.batch

    def _take(self, items: list[Item], room: int, more: bool) -> list[Effect]:
        """Send what has not been sent on this connection, as far as there is room. more: the store may hold others."""
        if self._flow is None:
            self._flow = Flow()
        flow = self._flow
        effects: list[Effect] = []
        for item in items:
            slot, version = item.slot, item.version
            if flow.unacked.get(slot, -1) < version:
                if room <= 0:
                    more = True
                    break
                room -= 1
                flow.unacked[slot] = version
                effects.append(notification(slot, version, item.body))
        self._dialect.counters.updates_sent += len(effects)
        if more:
            flow.more = True
        return effects

    def _next(self) -> list[Effect]:
        """When everything has been acknowledged, the next of what waits."""
        flow = self._flow
        if flow is None or flow.unacked:
            return []
        if not flow.more:
            self._flow = None
            return []
        flow.more = False
        return [Call(m.Fetch(self.key, self._dialect.options.batch), ("batch", None))]

    def _rest(self) -> None:
        flow = self._flow
        if flow is not None and not flow.unacked and not flow.more:
            self._flow = None

    # ------------------------------------------------------------------ broadcasts

    def _follow(self, versions: dict[str, str]) -> dict[str, Any]:
        """Follow these too. Returns: what the device is sent about them now."""
        if not versions:
            return {}
        broadcasts = self._dialect.broadcasts
        changed, errors = broadcasts.compare(versions)
        followed = broadcasts.follow(versions, self._follows)
        if followed is None:
            errors |= dict.fromkeys(versions, NOT_FOLLOWED)
        else:
            self._follows = followed  # the unknown ones too: they may be set one day
        return changed | {"errors": errors} if errors else changed

    def broadcasts_changed(self) -> Effects:
        """What has changed of the broadcasts that it follows since it was sent any."""
        broadcasts = self._dialect.broadcasts
        before, self._broadcast_change = self._broadcast_change, broadcasts.changes
        if self._follows is None or before == self._broadcast_change:
            return ()
        changed = broadcasts.since(before, self._follows.ids)
        return (broadcast(changed),) if changed else ()


def _is_of(slot: str, channel: str) -> bool:
    return channel_of(slot) == channel


_COMMANDS: Final[dict[type, Callable[[WebPushSession, Any, float], Effects]]] = {
    Hello: WebPushSession._hello_again,
    Register: WebPushSession._register,
    Unregister: WebPushSession._unregister,
    Ack: WebPushSession._ack,
    Nack: WebPushSession._nack,
    BroadcastSubscribe: WebPushSession._subscribe,
    Urgency: WebPushSession._urgency,
    Ping: WebPushSession._ping,
}
