"""Turns what happens in channels into events of webhooks: which, when, and for which webhook. Pure."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from router.common import messages as m
from router.common.position import ANY_EPOCH, AfterOffset, LogSlice
from router.core.facades import Core
from router.core.operations import Done
from router.dialects.pusher.applications import App, Webhook
from router.dialects.pusher.operations import HandOver
from router.dialects.pusher.protocol import CACHE_MISS, NAME, PusherOptions, channel_address, event_frame, is_presence
from router.dialects.pusher.subscription_counts import SubscriptionCounts
from router.dialects.pusher.webhooks.elsewhere import Elsewhere
from router.dialects.pusher.webhooks.outbox import SPACE, Outbox, address
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
        # What has left and may be back: (app, channel, user or None) -> when the event is sent. All wait equally long,
        # so the first is always the next.
        self._held: dict[tuple[str, str, str | None], float] = {}
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
        if app and self._held.pop((app, channel, None), None) is None:
            self._add(app, "channel_occupied", {"channel": channel})

    def vacated(self, label: str) -> None:
        """The last subscriber has gone."""
        app, channel = self._channel(label)
        if app:
            self._hold("channel_vacated", (app, channel, None))
            self._counts.vacated((app, channel))

    def joined(self, label: str, user: str) -> None:
        """The user's first socket has joined the presence channel."""
        app, channel = self._channel(label)
        if app and self._held.pop((app, channel, user), None) is None:
            self._add(app, "member_added", {"channel": channel, "user_id": user})

    def left(self, label: str, user: str) -> None:
        """The user's last socket has left it."""
        app, channel = self._channel(label)
        if app:
            self._hold("member_removed", (app, channel, user))

    def counted(self, label: str, subscribers: int) -> None:
        """So many subscribe to the channel now."""
        app, channel = self._channel(label)
        if not app or not self._apps[app].subscription_count or is_presence(channel):
            return
        self._counts.counted((app, channel), subscribers, self._monotonic())

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

    def _hold(self, event: str, left: tuple[str, str, str | None]) -> None:
        if (left[0], event) not in self._wanted and not self._cancels(left):
            return
        held = self._held
        held.pop(left, None)
        held[left] = self._monotonic() + self._options.webhook_hold
        if len(held) > self._options.webhook_queue:
            self._release(next(iter(held)))

    def _cancels(self, left: tuple[str, str, str | None]) -> bool:
        """Whether the event of a return is wanted, which is left out if the return follows soon, though that of the
        leaving is not."""
        app, _, user = left
        return (app, "channel_occupied" if user is None else "member_added") in self._wanted

    def _release(self, left: tuple[str, str, str | None]) -> None:
        del self._held[left]
        app, channel, user = left
        if user is None:
            self._add(app, "channel_vacated", {"channel": channel})
        else:
            self._add(app, "member_removed", {"channel": channel, "user_id": user})

    def _send_count(self, name: tuple[str, str], subscribers: int) -> None:
        app, channel = name
        self._add(app, "subscription_count", {"channel": channel, "subscription_count": subscribers})
        data = _encode({"subscription_count": subscribers}).decode()
        frame = event_frame("pusher_internal:subscription_count", channel, data)
        self._messages.publish(channel_address(app, channel), frame)

    def _add(self, app: str, event: str, fields: dict[str, Any]) -> None:
        outboxes = self._wanted.get((app, event))
        if outboxes is None:
            return
        text = _encode({"name": event, **fields}).decode()
        expires = int(self._unix_time()) + max(1, self._options.webhook_retry)
        for outbox in outboxes:
            if isinstance(outbox, Elsewhere):
                outbox.put(text)
            else:
                self._keep(outbox, text, expires)

    def _keep(self, outbox: Outbox, text: str, expires: int, then: Callable[[], None] | None = None) -> None:
        if self._messages.full:
            outbox.put(0, text)
            if then is not None:
                then()
        else:
            self._logs.append(Append(outbox.log, 0, expires, text), _Kept(outbox, text, then))

    def _handed_over(self, log: bytes, asked: HandOver, done: Done) -> None:
        """Events of channels that another router owns."""
        outbox = self._by_log.get(log)
        if outbox is None:
            raise m.MessageError("there is no webhook with this address: the routers' settings differ")
        left = len(asked.events)
        if not left:
            done(m.OK)

        def kept() -> None:
            nonlocal left
            left -= 1
            if not left:
                done(m.OK)

        expires = int(self._unix_time()) + max(1, self._options.webhook_retry)
        for text in asked.events:
            self._keep(outbox, text, expires, kept)

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """Send what has been held back for long enough."""
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

    # ------------------------------------------------------------------ the store

    def restore(self) -> None:
        """Read what waited when the router ended. To be called once, before anything happens."""
        for outbox in self.outboxes:
            self._restore(outbox)

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

    def __init__(self, outbox: Outbox, text: str, then: Callable[[], None] | None) -> None:
        self._outbox = outbox
        self._text = text
        self._then = then

    def __call__(self, status: int, end: AfterOffset | None) -> None:
        # If the store could not keep it, the event is sent all the same.
        self._outbox.put(0 if end is None or status != m.OK else end.offset, self._text)
        if self._then is not None:
            self._then()
