"""Turns what happens in channels into events of webhooks: which, when, and for which webhook. Pure."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import msgspec

from router.common import messages as m
from router.common.position import ANY_EPOCH, AfterOffset, LogSlice
from router.core.channel import FOUND
from router.core.facades import Core
from router.core.operations import Done
from router.dialects.pusher.applications import App, Webhook
from router.dialects.pusher.operations import HandOver
from router.dialects.pusher.protocol import CACHE_MISS, NAME, PusherOptions, channel_address, event_frame, is_presence
from router.dialects.pusher.subscription_counts import SubscriptionCounts
from router.dialects.pusher.webhooks.elsewhere import Elsewhere
from router.dialects.pusher.webhooks.outbox import SPACE, Outbox, address
from router.dialects.pusher.webhooks.told import Entry, Told, nothing
from router.store.base import Append

_POSITION: Final = struct.Struct(">Q")
_POSITION_GRACE_S: Final = 3600
_encode = msgspec.json.Encoder().encode


class _ClientEvent(msgspec.Struct):
    """The message that a device has published."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b'""')
    user_id: str | int | None = None


_client_event_in = msgspec.json.Decoder(_ClientEvent)


def _put(elsewhere: Elsewhere, text: str, kept: Callable[[], None], status: int) -> None:
    elsewhere.put(text, kept)


def after(times: int, then: Callable[[], None]) -> Callable[[], None]:
    """What calls `then` when it has been called so often."""

    def one() -> None:
        nonlocal times
        times -= 1
        if not times:
            then()

    return one


class Webhooks:
    """Observes channels, and makes events for webhooks.

    `label` is a channel's as SUBSCRIBE gave it; those of other dialects, and those that begin with "#", are ignored.
    Of a webhook whose outbox another router owns, that router is handed the events.
    `monotonic` and `unix_time` are clocks in seconds; `tick` is to be called a few times a second.
    """

    def __init__(
        self,
        apps: Iterable[App],
        options: PusherOptions,
        core: Core,
        monotonic: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._messages = core.messages
        self._records = core.records
        self._logs = core.logs
        self._monotonic = monotonic
        self._unix_time = unix_time
        self._apps = {app.id: app for app in apps}
        self._operations = core.operations
        self.outboxes: list[Outbox] = []
        self.elsewhere: list[Elsewhere] = []
        self._wanted: dict[tuple[str, str], list[Outbox | Elsewhere]] = {}
        for app in self._apps.values():
            # Of two webhooks with the same URL the log would be the same: they are one.
            hooks: dict[str, frozenset[str]] = {}
            for hook in app.webhooks:
                hooks[hook.url] = hooks.get(hook.url, frozenset()) | hook.events
            for url, events in hooks.items():
                takes = self._outbox(app, Webhook(url, events))
                for event in events:
                    self._wanted.setdefault((app.id, event), []).append(takes)
        self._by_log = {outbox.log: outbox for outbox in self.outboxes}
        core.operations.register(NAME, {HandOver: self._handed_over})
        # Whether there is anything to send: to webhooks, or counts to subscribers.
        self.needed = bool(self._wanted) or any(app.subscription_count for app in self._apps.values())
        self.told = Told(core.records, core.operations.owns)
        self._channels = core.channels
        # Until all workers have announced what they hold, it is not known what is new and what has gone.
        self._settled = not core.channels.unsettled
        self._compare = False
        self._uncounted: set[str] = set()  # labels of channels whose number has changed in that time
        # What has left and may be back, and when the event is sent. All wait equally long, so the first is always the
        # next.
        self._held: dict[Entry, float] = {}
        self._missed: dict[tuple[str, str], float] = {}  # cache misses sent, until when no other is
        self._counts = SubscriptionCounts(options, self._send_count)

    def _outbox(self, app: App, hook: Webhook) -> Outbox | Elsewhere:
        if not self._operations.owns(address(app, hook)):
            elsewhere = Elsewhere(app, hook, self._options, self._operations, self._monotonic)
            self.elsewhere.append(elsewhere)
            return elsewhere
        outbox = Outbox(app, hook, self._options, self._monotonic, self._unix_time)
        self.outboxes.append(outbox)
        return outbox

    # ------------------------------------------------------------------ what happens

    def admits(self, label: str) -> bool:
        """Every channel may have subscribers."""
        return True

    def occupied(self, label: str) -> None:
        """The channel has its first subscriber."""
        app, channel = self._channel(label)
        if app and self._settled:
            self._came((app, channel, None))

    def vacated(self, label: str) -> None:
        """The last subscriber has gone."""
        app, channel = self._channel(label)
        if app:
            self._counts.vacated((app, channel))
            if self._settled:
                self._hold((app, channel, None))

    def joined(self, label: str, user: str) -> None:
        """The user's first socket has joined the presence channel."""
        app, channel = self._channel(label)
        if app and self._settled:
            self._came((app, channel, user))

    def left(self, label: str, user: str) -> None:
        """The user's last socket has left it."""
        app, channel = self._channel(label)
        if app and self._settled:
            self._hold((app, channel, user))

    def counted(self, label: str, subscribers: int) -> None:
        """So many subscribe to the channel now."""
        app, channel = self._channel(label)
        if not app or not self._apps[app].subscription_count or is_presence(channel):
            return
        if self._settled:
            self._counts.counted((app, channel), subscribers, self._monotonic())
        else:
            self._uncounted.add(label)

    def published(self, label: str, body: str, exclude: str) -> None:
        """A device with this socket id has published this message. Raises: MessageError if it is malformed."""
        app, channel = self._channel(label)
        if (app, "client_event") not in self._wanted:
            return
        try:
            frame = _client_event_in.decode(body)
            data = bytes(frame.data)
            # The data of an event is a string; an object that a device has sent is passed on as its JSON.
            text = msgspec.json.decode(data, type=str) if data.startswith(b'"') else data.decode()
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise m.MessageError(f"a client event is a frame: {error}") from error
        fields = {"channel": channel, "event": frame.event, "data": text, "socket_id": exclude}
        self._add(app, "client_event", fields if frame.user_id is None else fields | {"user_id": str(frame.user_id)})

    def happened(self, label: str, what: str, detail: str) -> None:
        """A session has reported this of a channel: CACHE_MISS."""
        app, channel = self._channel(label)
        if app and what == CACHE_MISS:
            self._missed_cache(app, channel)

    def _channel(self, label: str) -> tuple[str, str]:
        """Application and channel; both empty if no event is wanted."""
        if not self.needed or not label:
            return "", ""
        dialect, app, channel = m.label_parts(label)
        if dialect != NAME or channel.startswith("#") or app not in self._apps:
            return "", ""
        return app, channel

    def _missed_cache(self, app: str, channel: str) -> None:
        name = (app, channel)
        now = self._monotonic()
        if (app, CACHE_MISS) not in self._wanted or self._missed.get(name, 0.0) > now:
            return
        self._missed.pop(name, None)  # so that the table stays in the order of time
        self._missed[name] = now + self._options.webhook_hold
        if len(self._missed) > self._options.webhook_queue:
            del self._missed[next(iter(self._missed))]
        self._add(app, CACHE_MISS, {"channel": channel})

    def _came(self, entry: Entry) -> None:
        """A channel has its first subscriber, or a user its first connection."""
        if self._held.pop(entry, None) is None:
            self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        app, channel, user = entry
        event = "channel_occupied" if user is None else "member_added"
        kept = self.told.tell(entry, self._goes_elsewhere(app, event)) if self._matters(entry) else nothing
        self._add(app, event, {"channel": channel} if user is None else {"channel": channel, "user_id": user}, kept)

    def _tell_opposite(self, entry: Entry) -> None:
        app, channel, user = entry
        event = "channel_vacated" if user is None else "member_removed"
        kept = self.told.tell_opposite(entry, self._goes_elsewhere(app, event))
        self._add(app, event, {"channel": channel} if user is None else {"channel": channel, "user_id": user}, kept)

    def _goes_elsewhere(self, app: str, event: str) -> bool:
        return any(isinstance(outbox, Elsewhere) for outbox in self._wanted.get((app, event), ()))

    def _hold(self, entry: Entry) -> None:
        """The last one has gone, and may be back in a moment."""
        if not self._matters(entry):
            return
        held = self._held
        held.pop(entry, None)
        held[entry] = self._monotonic() + self._options.webhook_hold
        if len(held) > self._options.webhook_queue:
            self._release(next(iter(held)))

    def _matters(self, entry: Entry) -> bool:
        """Whether an event of its coming or of its going is wanted. One of its return is left out if that follows soon,
        though that of its leaving is not wanted."""
        app, _, user = entry
        events = ("channel_occupied", "channel_vacated") if user is None else ("member_added", "member_removed")
        return any((app, event) in self._wanted for event in events)

    def _release(self, entry: Entry) -> None:
        del self._held[entry]
        self._tell_opposite(entry)

    def _send_count(self, name: tuple[str, str], subscribers: int) -> None:
        app, channel = name
        self._add(app, "subscription_count", {"channel": channel, "subscription_count": subscribers})
        data = _encode({"subscription_count": subscribers}).decode()
        frame = event_frame("pusher_internal:subscription_count", channel, data)
        self._messages.publish(channel_address(app, channel), frame)

    def _add(self, app: str, event: str, fields: dict[str, Any], kept: Callable[[], None] = nothing) -> None:
        """kept: called when it is, by all webhooks that want it."""
        outboxes = self._wanted.get((app, event))
        if outboxes is None:
            kept()
            return
        text = _encode({"name": event, **fields}).decode()
        expires = int(self._unix_time()) + max(1, self._options.webhook_retry)
        one = kept if len(outboxes) == 1 else after(len(outboxes), kept)
        for outbox in outboxes:
            if isinstance(outbox, Elsewhere):  # which has it only when it is kept here that this was told
                self._records.when_durable(partial(_put, outbox, text, one))
            else:
                self._keep(outbox, text, expires, one)

    def _keep(self, outbox: Outbox, text: str, expires: int, then: Callable[[], None]) -> None:
        if self._messages.full:
            outbox.put(0, text)
            then()
        else:
            self._logs.append(Append(outbox.log, 0, expires, text), _Kept(outbox, text, then))

    def _handed_over(self, log: bytes, asked: HandOver, done: Done) -> None:
        """Events of channels that another router owns."""
        outbox = self._by_log.get(log)
        if outbox is None:
            raise m.MessageError("there is no webhook with this address: the routers' settings differ")
        if not asked.events:
            done(m.OK)
        kept = after(len(asked.events), partial(done, m.OK))
        expires = int(self._unix_time()) + max(1, self._options.webhook_retry)
        for text in asked.events:
            self._keep(outbox, text, expires, kept)

    # ------------------------------------------------------------------ a router that is new

    def settled(self) -> None:
        """All workers have announced what they hold."""
        self._compare = not self._settled
        self.tick()

    def _look(self) -> None:
        """Compare what was told with what is there."""
        self._compare = False
        self._settled = True
        there: dict[Entry, bool] = {}  # and whether it was there before this router
        for app in self._apps:
            for name in self._channels.names(NAME, app, lost=True):
                channel = None if name.startswith("#") else self._channels.get(channel_address(app, name))
                if channel is not None:
                    found = channel.announced == FOUND
                    there[app, name, None] = found
                    there.update(((app, name, user), found) for user in channel.members or ())
        told = self.told
        for entry in list(told):
            if not self._matters(entry):
                told.forget(entry)
            elif entry not in there:
                if told.in_doubt(entry):
                    self._tell_opposite(entry)
                else:
                    self._hold(entry)  # as one that has gone now: it may be back in a moment
        for entry, found in there.items():
            if not self._matters(entry) or (entry in told and not told.in_doubt(entry)):
                continue
            if found and not told.begun:  # the store does not outlive a router
                told.add(entry)
            else:
                self._tell(entry)
        for label in self._uncounted:
            channel = self._channels.get(channel_address(*m.label_parts(label)[1:]))
            if channel is not None:
                self.counted(label, channel.count)
        self._uncounted = set()

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """Send what has been held back for long enough."""
        if self._compare and self.told.read:
            self._look()
        self.told.tick()
        now = self._monotonic()
        held = self._held
        while held and held[left := next(iter(held))] <= now:
            self._release(left)
        while self._missed and self._missed[name := next(iter(self._missed))] <= now:
            del self._missed[name]
        self._counts.tick(now)
        for elsewhere in self.elsewhere:
            elsewhere.tick()

    def release(self) -> None:
        """The router ends: what was held back is written into the store now."""
        while self._held:
            self._release(next(iter(self._held)))
        self.told.flush()

    # ------------------------------------------------------------------ the store

    def restore(self) -> None:
        """Read what waited when the router ended. To be called once, before anything happens."""
        for outbox in self.outboxes:
            self._restore(outbox)
        if any(map(self._matters, self._kinds())):
            self.told.restore()

    def _kinds(self) -> Iterable[Entry]:
        """An entry of each kind."""
        return ((app, "", user) for app in self._apps for user in (None, ""))

    def _restore(self, outbox: Outbox) -> None:
        position = 0

        def record(status: int, value: bytes | None) -> None:
            nonlocal position
            if value is not None and len(value) == _POSITION.size:
                (position,) = _POSITION.unpack(value)

        def read(status: int, part: LogSlice | None) -> None:
            if part is not None:
                outbox.restore(position, part)

        self._records.read(SPACE, outbox.log, record)
        self._logs.read(outbox.log, AfterOffset(ANY_EPOCH, 0), read)

    def advance(self, outbox: Outbox, offset: int) -> None:
        """A webhook has got everything up to this position, or it was given up."""
        if offset:
            # An event that has not been sent came later, so the record outlives the events before its position.
            expires = int(self._unix_time()) + self._options.webhook_retry + _POSITION_GRACE_S
            self._records.put(SPACE, outbox.log, _POSITION.pack(offset), expires, own=True)


class _Kept:
    """An event on its way into the log."""

    __slots__ = ("_outbox", "_text", "_then")

    def __init__(self, outbox: Outbox, text: str, then: Callable[[], None]) -> None:
        self._outbox = outbox
        self._text = text
        self._then = then

    def __call__(self, status: int, end: AfterOffset | None) -> None:
        # If the store could not keep it, the event is sent all the same.
        self._outbox.put(0 if end is None or status != m.OK else end.offset, self._text)
        self._then()
