"""WebPush, device side: hello, register, unregister, ack, nack, broadcast_subscribe, ping, notification.

Source: autopush-rs 1.83 and the push client of Firefox, which judges where they differ. What a device may not say ends
the connection with 1008 and a reason (autopush: 1011, which says that the server failed); there are no error replies
but to register, unregister and urgency. Members that are not known here are passed over, and null stands for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from operator import itemgetter
from typing import Annotated, Any, Final
from weakref import WeakValueDictionary

import msgspec

from farm.coarse_time import CoarseTime
from farm.dialects import (
    REGISTERED,
    Attach,
    Become,
    BroadcastTracker,
    Call,
    Close,
    Context,
    DeviceSession,
    DeviceSide,
    Dialect,
    Effect,
    Effects,
    Session,
)
from farm.transports.request import Request
from router.common import messages as m
from router.common.id_set import HEAD_BYTES, ids
from router.common.item import Item
from router.common.last_seen import stamp
from router.common.uuids import is_id, new_uaid
from router.dialects.webpush import SPEC
from router.dialects.webpush.protocol import (
    BAD_KEY,
    DEVICES,
    MOVED,
    NO_HELLO,
    NO_URGENCY,
    NOT_DONE,
    REFUSED,
    STORE_FAILED,
    TOO_MANY_CHANNELS,
    TOO_MANY_PINGS,
    UNSUPPORTED,
    WebPushOptions,
    base_url,
    channel_of,
    device_address,
    endpoint,
    parse_wire,
    wire_version,
)
from router.dialects.webpush.vapid import Recent, VapidError, key_digest, public_key

SUBPROTOCOL: Final = "push-notification"
NOT_FOUND: Final = "Broadcast not found"
NOT_FOLLOWED: Final = "Broadcast cannot be followed now"

_NEVER: Final = float("-inf")
_UAID: Final = re.compile(r"[0-9a-f]{32}")
_EMPTY: Final = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*\}[ \t\r\n]*")
_NOT_IMPLEMENTED: Final = b'{"messageType":"urgency","status":%d}' % NO_URGENCY.status
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Channel = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]


class _Command(msgspec.Struct, frozen=True, gc=False, tag_field="messageType"):
    """What a device may say. Fields that are not named here are passed over."""


class _Hello(_Command, tag="hello", frozen=True, gc=False):
    uaid: str | None = None
    channelIDs: list[str] | None = None
    broadcasts: dict[str, str | None] | None = None


class _Register(_Command, tag="register", frozen=True, gc=False):
    channelID: _Channel
    key: str | None = None


class _Unregister(_Command, tag="unregister", frozen=True, gc=False):
    channelID: _Channel
    code: int | None = None


class _Update(msgspec.Struct, frozen=True, gc=False):
    channelID: _Channel
    version: str
    code: int | None = None


class _Ack(_Command, tag="ack", frozen=True, gc=False):
    updates: list[_Update]


class _Nack(_Command, tag="nack", frozen=True, gc=False):
    version: str
    code: int | None = None


class _Subscribe(_Command, tag="broadcast_subscribe", frozen=True, gc=False):
    broadcasts: dict[str, str | None]


class _Urgency(_Command, tag="urgency", frozen=True, gc=False):
    """The least urgency that a device wants to be woken for: autopush-rs may be built with it, and Sunup says it."""


class _Ping(_Command, tag="ping", frozen=True, gc=False):
    pass


_encode = msgspec.json.Encoder().encode
_decode_anything = msgspec.json.Decoder().decode
_decode = msgspec.json.Decoder(_Hello | _Register | _Unregister | _Ack | _Nack | _Subscribe | _Urgency | _Ping).decode
_PING: Final = _Ping()
_by_slot = itemgetter(0)


class Following:
    """A set of broadcast IDs, shared by all devices that follow just these, and forgotten with the last of them."""

    __slots__ = ("__weakref__", "ids")

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids


class Broadcasts(BroadcastTracker):
    """The broadcasts as the router last told them, and the sets that devices follow."""

    def __init__(self, options: WebPushOptions) -> None:
        self._options = options
        self._known: dict[str, tuple[str, int]] = {}  # ID -> version, number of the change that set it
        self._unheard: set[str] = set()  # of those, what the router that came back has not told
        self._sets: WeakValueDictionary[tuple[str, ...], Following] = WeakValueDictionary()
        self.changes = 0

    def renewed(self) -> None:
        """The router will tell everything anew."""
        self._unheard = set(self._known)

    def complete(self) -> None:
        """It has: what it did not tell has gone in the meantime."""
        for broadcast in self._unheard:
            del self._known[broadcast]
        self._unheard.clear()

    def changed(self, key: str, value: str | None) -> bool:
        """The router has sent a version, None for a broadcast that is no more. Returns: whether devices must hear."""
        self._unheard.discard(key)
        if value is None:
            self._known.pop(key, None)
            return False
        known = self._known.get(key)
        if known is not None and known[0] == value:
            return False  # sent again, because the link was renewed
        self.changes += 1
        self._known[key] = (value, self.changes)
        return True

    @property
    def session_type(self) -> type[Session]:
        return WebPushSession

    def notify(self, session: Any) -> Effects:
        assert isinstance(session, WebPushSession)
        return session.news()

    def since(self, change: int, ids: Iterable[str]) -> dict[str, str]:
        """Those of the IDs whose version was set after that change."""
        known = self._known
        return {i: known[i][0] for i in ids if i in known and known[i][1] > change}

    def compare(self, versions: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """What a device does not have yet of the broadcasts it named, and what is wrong with the others."""
        changed: dict[str, str] = {}
        errors: dict[str, str] = {}
        for broadcast, version in versions.items():
            known = self._known.get(broadcast)
            if known is None:
                errors[broadcast] = NOT_FOUND
            elif known[0] != version:
                changed[broadcast] = known[0]
        return changed, errors

    def fault(self, versions: Mapping[str, str], followed: Following | None) -> str | None:
        """Why these cannot be followed beside those that are, if so."""
        for broadcast, version in versions.items():
            if not 0 < len(broadcast) <= m.MAX_BROADCAST_KEY or len(version) > m.MAX_BROADCAST_VALUE:
                return "a broadcast's ID or version is too long or empty"
        most = self._options.max_broadcasts
        if len(versions) > most or len(_joined(followed, versions)) > most:
            return f"more than {most} broadcasts"
        return None

    def follow(self, ids: Collection[str], followed: Following | None) -> Following | None:
        """The set of these and of those that are followed already; None if there are too many different sets."""
        joined = tuple(sorted(_joined(followed, ids)))
        found = self._sets.get(joined)
        if found is None and len(self._sets) < self._options.max_broadcast_sets:
            found = self._sets[joined] = Following(joined)
        return found


def _joined(followed: Following | None, ids: Iterable[str]) -> set[str]:
    joined = set(ids)
    if followed is not None:
        joined.update(followed.ids)
    return joined


class WebPushDialect(Dialect):
    """What all sessions of a worker share."""

    def __init__(self, context: Context) -> None:
        options = context.settings.get(WebPushOptions)
        self.options = options
        self.counters = context.counters
        self.nacks: dict[int | None, int] = {301: 0, 302: 0, 303: 0, None: 0}
        self.unix_time = context.unix_time
        self.coarse_time = CoarseTime()
        self._broadcasts = Broadcasts(options)
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
            found = _decode_anything(first)
        except _UNREADABLE:
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
        return endpoint(self._base, self._tokens, device, _member(channel), digest)

    def digest_of(self, key: str) -> bytes:
        """The digest of an app server's key. Nearly all devices register with one of a few. Raises: VapidError."""
        digest = self._keys.get(key)
        if digest is None:
            digest = key_digest(public_key(key.encode()))
            self._keys.put(key, digest)
        return digest

    def today(self) -> bytes:
        """What stands at the head of the record of a device that says hello now. Once it is another, it is renewed."""
        return stamp(self.unix_time(), self.options.timeout_uaid)


class _Flow:
    """What is under way to one device."""

    __slots__ = ("more", "unacked")

    def __init__(self) -> None:
        self.unacked: dict[str, int] = {}  # what was sent on this connection and not acknowledged: slot -> version
        self.more = False  # the store may hold something that was not sent


class _Reader(Session):
    """What an identified device and another have in common: commands are read alike."""

    __slots__ = ()
    _dialect: WebPushDialect

    def _refuse(self, reason: str, code: int = REFUSED) -> Effects:
        self._dialect.counters.commands_refused += 1
        return (Close(code, reason),)

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if binary:
            return self._refuse(UNSUPPORTED.text, UNSUPPORTED)
        command: Any
        try:
            command = _decode(message)
        except _UNREADABLE as error:
            if _EMPTY.fullmatch(message) is None:
                return self._refuse(str(error))
            command = _PING
        return self._handle(command, now)

    def _handle(self, command: Any, now: float) -> Effects:
        raise NotImplementedError


class Unidentified(_Reader, msgspec.Struct, gc=False, eq=False):
    """A connection whose device has not said hello, or waits for what comes of it."""

    _dialect: WebPushDialect

    def _handle(self, command: Any, now: float) -> Effects:
        return self._hello(command) if type(command) is _Hello else self._refuse("hello is expected first")

    def _hello(self, command: _Hello) -> Effects:
        broadcasts = _named(command.broadcasts)
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
        # Nothing can wait for a uaid that nobody has heard of yet, so there is nothing to fetch.
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
        items, record = attached.items, attached.record
        # The key is the very object that the worker knows the device by: to make it again would cost its memory.
        session = WebPushSession(self._dialect, key, _told=self._dialect.broadcasts.changes)
        reply = {
            "messageType": "hello",
            "uaid": uaid,
            "status": 200,
            "use_webpush": True,
            "broadcasts": session._follow(broadcasts),
        }
        self._dialect.counters.hellos += 1
        effects: list[Effect] = [Become(session), _encode(reply)]
        if items:
            effects += session._take(items, len(items), session._full(items))
            effects += session._next()
        today = self._dialect.today()
        if record is not None and record[:HEAD_BYTES] != today:
            # Not written as it was read: an older connection of the device may be about to change it.
            effects += (session._set_add(member, 0) for member in ids(record)[:1])
        return effects

    def tick(self, silent: float) -> tuple[Effects, float]:
        self._dialect.counters.timeouts += 1
        return (Close(NO_HELLO, NO_HELLO.text),), 0


class WebPushSession(_Reader, DeviceSession, msgspec.Struct, gc=False, eq=False):
    """A device that has said hello."""

    _dialect: WebPushDialect
    key: bytes
    _flow: _Flow | None = None  # only while something is under way
    _follows: Following | None = None
    _told: int = 0  # the change up to which it knows of its broadcasts
    _last_ping: float = _NEVER

    # ------------------------------------------------------------------ from the device

    def _handle(self, command: Any, now: float) -> Effects:
        return _COMMANDS[type(command)](self, command, now)

    def _hello_again(self, command: _Hello, now: float) -> Effects:
        return self._refuse("hello has been said")

    def _register(self, command: _Register, now: float) -> Effects:
        channel, digest = command.channelID, b""
        if command.key is not None:
            try:
                digest = self._dialect.digest_of(command.key)
            except VapidError as error:
                return (_registered(channel, BAD_KEY.status, str(error)),)
        request = self._set_add(_member(channel), self._dialect.options.max_channels)
        return (Call(request, ("register", (channel, digest))),)

    def _set_add(self, member: bytes, most: int) -> m.SetAdd:
        """Writes the device's record, with this channel in it, and keeps it for a while from now on."""
        return m.SetAdd(DEVICES, self.key, member, self._dialect.today(), self._dialect.options.timeout_uaid, most)

    def _unregister(self, command: _Unregister, now: float) -> Effects:
        channel = command.channelID
        return (Call(m.SetRemove(DEVICES, self.key, _member(channel)), ("unregister", channel)),)

    def _ack(self, command: _Ack, now: float) -> Effects:
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

    def _nack(self, command: _Nack, now: float) -> Effects:
        """It says what went wrong in the page; the message was acknowledged."""
        nacks = self._dialect.nacks
        nacks[command.code if command.code in nacks else None] += 1
        return ()

    def _subscribe(self, command: _Subscribe, now: float) -> Effects:
        broadcasts = _named(command.broadcasts)
        if fault := self._dialect.broadcasts.fault(broadcasts, self._follows):
            return self._refuse(fault)
        told = self._follow(broadcasts)
        return (_broadcast(told),) if told else ()

    def _urgency(self, command: _Urgency, now: float) -> Effects:
        return (_NOT_IMPLEMENTED,)  # it goes on hearing of everything

    def _ping(self, command: _Ping, now: float) -> Effects:
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
            return self._register_answered(subject, status)
        if kind == "unregister":
            if status != m.OK:
                return (_unregistered(subject, NOT_DONE.status),)
            # What waits of the channel goes too. Nothing more can come: its endpoint is gone.
            return (Call(m.Fetch(self.key, m.EVERYTHING), ("forget", subject)),)
        if kind == "forget":
            return self._forget(subject, status, payload)
        if status != m.OK:
            return (Close(STORE_FAILED, STORE_FAILED.text),)
        items: list[Item] = payload
        return [*self._take(items, len(items), self._full(items)), *self._next()]

    def _register_answered(self, subject: tuple[str, bytes], status: int) -> Effects:
        channel, digest = subject
        if status == m.FULL:
            return (_registered(channel, TOO_MANY_CHANNELS.status, TOO_MANY_CHANNELS.text),)
        if status != m.OK:
            return (_registered(channel, NOT_DONE.status, ""),)
        self._dialect.counters.registers += 1
        return (_registered(channel, 200, self._dialect.endpoint(self.key, channel, digest)), REGISTERED)

    def _forget(self, channel: str, status: int, items: list[Item]) -> Effects:
        if status != m.OK:
            return (_unregistered(channel, NOT_DONE.status),)
        self._dialect.counters.unregisters += 1
        effects: list[Effect] = [_unregistered(channel, 200)]
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
            flow = self._flow = _Flow()
        elif (sent := flow.unacked.get(slot, -1)) >= version:
            return None  # it was sent, or what replaces it: nothing older follows
        elif sent < 0 and len(flow.unacked) >= self._dialect.options.max_unacked:
            flow.more = True
            return None
        flow.unacked[slot] = version
        self._dialect.counters.updates_sent += 1
        return _notification(slot, version, body)

    def stored(self, items: list[Item], now: float) -> Effects:
        under_way = 0 if self._flow is None else len(self._flow.unacked)
        # A question may be open: so nothing is asked here, and what has no room waits for the acks of the rest.
        items.sort(key=_by_slot)
        effects = self._take(items, self._dialect.options.batch - under_way, False)
        self._rest()
        return effects

    def _full(self, items: list[Item]) -> bool:
        return len(items) >= self._dialect.options.batch

    def _take(self, items: list[Item], room: int, more: bool) -> list[Effect]:
        """Send what has not been sent on this connection, as far as there is room. more: the store may hold others."""
        if self._flow is None:
            self._flow = _Flow()
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
                effects.append(_notification(slot, version, item.body))
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
        """Follow these too. Returns: what the device must be told of them now."""
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

    def news(self) -> Effects:
        """What has changed of the broadcasts it follows since it was told last."""
        broadcasts = self._dialect.broadcasts
        told, self._told = self._told, broadcasts.changes
        if self._follows is None or told == self._told:
            return ()
        changed = broadcasts.since(told, self._follows.ids)
        return (_broadcast(changed),) if changed else ()


def _member(channel: str) -> bytes:
    """A channel as it stands in the record of its device: the 16 bytes of the UUID."""
    return bytes.fromhex(channel.replace("-", ""))


def _named(versions: Mapping[str, str | None] | None) -> dict[str, str]:
    """The broadcasts that a device names."""
    return {broadcast: version for broadcast, version in (versions or {}).items() if version is not None}


def _is_of(slot: str, channel: str) -> bool:
    return channel_of(slot) == channel


def _notification(slot: str, version: int, body: str | None) -> bytes:
    # A body is a piece of JSON already, made by the app-server side.
    rest = f",{body}}}" if body else "}"
    head = '{"messageType":"notification","channelID":"'
    return f'{head}{channel_of(slot)}","version":"{wire_version(slot, version)}"{rest}'.encode()


def _registered(channel: str, status: int, endpoint: str) -> bytes:
    return _encode({"messageType": "register", "channelID": channel, "status": status, "pushEndpoint": endpoint})


def _unregistered(channel: str, status: int) -> bytes:
    return _encode({"messageType": "unregister", "channelID": channel, "status": status})


def _broadcast(broadcasts: Mapping[str, Any]) -> bytes:
    return _encode({"messageType": "broadcast", "broadcasts": broadcasts})


_COMMANDS: Final[dict[type, Callable[[WebPushSession, Any, float], Effects]]] = {
    _Hello: WebPushSession._hello_again,
    _Register: WebPushSession._register,
    _Unregister: WebPushSession._unregister,
    _Ack: WebPushSession._ack,
    _Nack: WebPushSession._nack,
    _Subscribe: WebPushSession._subscribe,
    _Urgency: WebPushSession._urgency,
    _Ping: WebPushSession._ping,
}


SIDE: Final = DeviceSide(
    spec=SPEC,
    make=WebPushDialect,
    paths=("/",),
    rank=10,
)
