"""Webhooks of the Pusher dialect: what happens in an application's channels, told to the URLs in its settings; and
how many subscribe to a channel, told to its subscribers too.

`Webhooks` is the pure part. As the observer of the dialect's channels (`router.core.channels`) it is told what happens,
holds back who may be back in a moment, and puts the rest into an `Outbox` for each webhook that wants it. `Sender` is
the thin one: it posts what the outboxes hold.

An event is appended to a log in the store, and is sent once it is there; how far a webhook has heard is a record
beside it. So what waits outlives the router, and after a crash a few events may be sent twice. Each outbox is one
sequence: its next request goes when the one before has been taken or given up.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec
import trio

from router import __version__
from router.common import logs
from router.common import messages as v
from router.common.options import Settings
from router.core.facades import Core
from router.dialects.pusher.applications import App, Webhook, body_signature, load
from router.dialects.pusher.protocol import CACHE_MISS, NAME, PusherOptions, channel_address, event_frame, is_presence
from router.dialects.pusher.subscription_counts import SubscriptionCounts
from router.store.base import LogSlice

SPACE: Final = "pusher.webhook"
"""Space of the records that hold how far a webhook has heard, and the dialect in the addresses of their logs."""

_POSITION: Final = struct.Struct(">Q")
_POSITION_GRACE_S: Final = 3600
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_TICK_S: Final = 0.1
_MAX_ANSWER_BYTES: Final = 65_536
_encode = msgspec.json.Encoder().encode


class _ClientEvent(msgspec.Struct):
    """The frame that a device has published."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b'""')
    user_id: str | int | None = None


_client_event_in = msgspec.json.Decoder(_ClientEvent)


# ---------------------------------------------------------------------- one webhook


class _Waiting(NamedTuple):
    """One event: its place in the log (0: it is not there), until when it is worth telling by the clock that only
    counts, and its JSON."""

    offset: int
    expires: float
    text: str


class Outbox:
    """What one webhook is still to be told, in order."""

    def __init__(
        self,
        app: App,
        hook: Webhook,
        options: PusherOptions,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self._monotonic = monotonic
        self._unix_time = unix_time
        self.app = app
        self.hook = hook
        self.log = v.channel_key(SPACE, app.id, hook.url)
        self.wake: Callable[[], None] = lambda: None
        self.sent = 0
        self.dropped = 0
        self._options = options
        self._waiting: deque[_Waiting] = deque()
        self._restored = 0  # what the log held when the router started is here up to this place
        self._batch: list[_Waiting] = []
        self._body = b""
        self._since = 0.0  # when the batch was tried first
        self._tries = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._batch)

    def restore(self, position: int, part: LogSlice) -> None:
        """What the log holds beyond the position that was told, as the router starts."""
        if part.last < position:
            position = 0  # the log began anew
        self._restored = part.last
        behind = self._monotonic() - self._unix_time()
        for event in part.events:
            if event.offset > position:
                self._put(_Waiting(event.offset, event.expires + behind, event.body))

    def put(self, offset: int, text: str) -> None:
        """One more event."""
        if 0 < offset <= self._restored:
            return  # it was in the log already when that was read
        self._restored = 0
        self._put(_Waiting(offset, self._monotonic() + max(1, self._options.webhook_retry), text))

    def _put(self, waiting: _Waiting) -> None:
        if len(self) >= self._options.webhook_queue:
            self._drop(1, "too many events wait for it")
            return
        self._waiting.append(waiting)
        self.wake()

    def _drop(self, events: int, why: str) -> None:
        self.dropped += events
        logs.limited("webhook.dropped", app=self.app.id, url=self.hook.url, why=why)

    def take(self) -> bytes:
        """The body of the next request, the same one until it is taken or given up; empty if there is nothing."""
        if self._batch:
            return self._body
        now = self._monotonic()
        waiting = self._waiting
        before = len(waiting)
        while waiting and waiting[0].expires <= now:
            waiting.popleft()
        if len(waiting) < before:
            self._drop(before - len(waiting), "its server has failed for webhook_retry")
        if not waiting:
            return b""
        self._batch = [waiting.popleft() for _ in range(min(len(waiting), self._options.webhook_batch))]
        events = ",".join(event.text for event in self._batch)
        self._body = f'{{"time_ms":{int(self._unix_time() * 1000)},"events":[{events}]}}'.encode()
        self._since = now
        self._tries = 0
        return self._body

    def taken(self) -> int:
        """The webhook's server has it. Returns: how far it has heard (0: not known)."""
        self.sent += len(self._batch)
        return self._done()

    def failed(self) -> tuple[float, int]:
        """It did not work. Returns: seconds until the next try; or 0 if it is given up, and how far that is."""
        left = self._since + self._options.webhook_retry - self._monotonic()
        if left <= 0:
            self._drop(len(self._batch), "its server has failed for webhook_retry")
            return 0.0, self._done()
        wait = min(_FIRST_WAIT_S * 2.0**self._tries, _LONGEST_WAIT_S)
        self._tries += 1
        return min(wait, left), 0

    def _done(self) -> int:
        offset = max((event.offset for event in self._batch), default=0)
        self._batch = []
        self._body = b""
        return offset


# ---------------------------------------------------------------------- all of them


class Webhooks:
    """What happens in the channels, turned into events of the webhooks.

    `label` is a channel's as SUBSCRIBE gave it; those of other dialects, and those that begin with "#", are nobody's
    business. `monotonic` and `unix_time` are clocks in seconds; `tick` is to be called a few times a second.
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
        self.outboxes: list[Outbox] = []
        self._wanted: dict[tuple[str, str], list[Outbox]] = {}
        for app in self._apps.values():
            # Of two webhooks with the same URL the log would be the same: they are one.
            hooks: dict[str, frozenset[str]] = {}
            for hook in app.webhooks:
                hooks[hook.url] = hooks.get(hook.url, frozenset()) | hook.events
            for url, events in hooks.items():
                outbox = Outbox(app, Webhook(url, events), options, monotonic, unix_time)
                self.outboxes.append(outbox)
                for event in events:
                    self._wanted.setdefault((app.id, event), []).append(outbox)
        # Whether there is anything to tell anybody: webhooks, or counts to subscribers.
        self.needed = bool(self.outboxes) or any(app.subscription_count for app in self._apps.values())
        # Who has left and may be back: (app, channel, user or None) to when it is told. All wait equally long, so the
        # first is always the next.
        self._held: dict[tuple[str, str, str | None], float] = {}
        self._missed: dict[tuple[str, str], float] = {}  # cache misses told, until when no other is
        self._counts = SubscriptionCounts(options, self._tell_count)

    # ------------------------------------------------------------------ what happens

    def occupied(self, label: str) -> None:
        """The channel has its first subscriber."""
        app, channel = self._channel(label)
        if app and self._held.pop((app, channel, None), None) is None:
            self._tell(app, "channel_occupied", {"channel": channel})

    def vacated(self, label: str) -> None:
        """The last subscriber has gone."""
        app, channel = self._channel(label)
        if app:
            self._hold("channel_vacated", (app, channel, None))
            self._counts.vacated((app, channel))

    def entered(self, label: str, user: str) -> None:
        """The user's first socket is in the presence channel."""
        app, channel = self._channel(label)
        if app and self._held.pop((app, channel, user), None) is None:
            self._tell(app, "member_added", {"channel": channel, "user_id": user})

    def left(self, label: str, user: str) -> None:
        """His last one has gone."""
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
        """A device with this socket id has published this frame. Raises: VocabularyError if it is none."""
        app, channel = self._channel(label)
        if (app, "client_event") not in self._wanted:
            return
        try:
            frame = _client_event_in.decode(body)
            data = bytes(frame.data)
            # The data of an event is text; what a device sent as an object is told as its JSON.
            text = msgspec.json.decode(data, type=str) if data.startswith(b'"') else data.decode()
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise v.VocabularyError(f"a client event is a frame: {error}") from error
        told = {"channel": channel, "event": frame.event, "data": text, "socket_id": exclude}
        self._tell(app, "client_event", told if frame.user_id is None else told | {"user_id": str(frame.user_id)})

    def happened(self, label: str, what: str, detail: str) -> None:
        """What a worker says of a channel: CACHE_MISS."""
        app, channel = self._channel(label)
        if app and what == CACHE_MISS:
            self._missed_cache(app, channel)

    def _channel(self, label: str) -> tuple[str, str]:
        """Application and channel; both empty if nobody is to hear of it."""
        if not self.needed or not label:
            return "", ""
        dialect, app, channel = v.label_parts(label)
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
        self._tell(app, CACHE_MISS, {"channel": channel})

    def _hold(self, event: str, who: tuple[str, str, str | None]) -> None:
        if (who[0], event) not in self._wanted and not self._cancels(who):
            return
        held = self._held
        held.pop(who, None)
        held[who] = self._monotonic() + self._options.webhook_hold
        if len(held) > self._options.webhook_queue:
            self._release(next(iter(held)))

    def _cancels(self, who: tuple[str, str, str | None]) -> bool:
        """Whether one who comes back is not to be told of either, though his going would not have been."""
        app, _, user = who
        return (app, "channel_occupied" if user is None else "member_added") in self._wanted

    def _release(self, who: tuple[str, str, str | None]) -> None:
        del self._held[who]
        app, channel, user = who
        if user is None:
            self._tell(app, "channel_vacated", {"channel": channel})
        else:
            self._tell(app, "member_removed", {"channel": channel, "user_id": user})

    def _tell_count(self, name: tuple[str, str], subscribers: int) -> None:
        app, channel = name
        self._tell(app, "subscription_count", {"channel": channel, "subscription_count": subscribers})
        data = _encode({"subscription_count": subscribers}).decode()
        frame = event_frame("pusher_internal:subscription_count", channel, data)
        self._messages.publish(channel_address(app, channel), frame, 0)

    def _tell(self, app: str, event: str, fields: dict[str, Any]) -> None:
        outboxes = self._wanted.get((app, event))
        if outboxes is None:
            return
        text = _encode({"name": event, **fields}).decode()
        expires = int(self._unix_time()) + max(1, self._options.webhook_retry)
        for outbox in outboxes:
            if self._messages.full:
                outbox.put(0, text)
            else:
                self._logs.append(outbox.log, expires, text, _Kept(outbox, text))

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """Tell what has been held back for long enough."""
        now = self._monotonic()
        held = self._held
        while held and held[who := next(iter(held))] <= now:
            self._release(who)
        while self._missed and self._missed[name := next(iter(self._missed))] <= now:
            del self._missed[name]
        self._counts.tick(now)

    def release(self) -> None:
        """The router ends: what was held back is told now, into the store at least."""
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
        self._logs.read(outbox.log, 0, read)

    def heard(self, outbox: Outbox, offset: int) -> None:
        """A webhook has heard everything up to this place, or it was given up."""
        if offset:
            # An event that is not told yet came later than this, so the record outlives what it says was told.
            expires = int(self._unix_time()) + self._options.webhook_retry + _POSITION_GRACE_S
            self._records.put(SPACE, outbox.log, _POSITION.pack(offset), expires, own=True)


class _Kept:
    """An event on its way into the log."""

    __slots__ = ("_outbox", "_text")

    def __init__(self, outbox: Outbox, text: str) -> None:
        self._outbox = outbox
        self._text = text

    def __call__(self, status: int, offset: int) -> None:
        # If the store could not do it, the event is told all the same.
        self._outbox.put(offset if status == v.OK else 0, self._text)


# ---------------------------------------------------------------------- shell


def start(settings: Settings, core: Core) -> Sender:
    """Observe the dialect's channels, and read what still waits; it is sent by the sender's `run`.

    To be called once, before any worker joins. Raises: AppsError.
    """
    options = settings.get(PusherOptions)
    apps = load(options.apps, options.unsigned)
    webhooks = Webhooks(apps, options, core)
    if webhooks.needed:
        core.channels.observe(NAME, webhooks)
        webhooks.restore()
    return Sender(webhooks, options)


class Sender:
    """Posts what the outboxes hold."""

    def __init__(self, webhooks: Webhooks, options: PusherOptions) -> None:
        self._webhooks = webhooks
        self._timeout = options.webhook_timeout
        self._limit = trio.CapacityLimiter(options.webhook_parallel)

    async def run(self) -> None:
        """Send for ever; at once over if there is nothing to tell anybody."""
        if not self._webhooks.needed:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            if self._webhooks.outboxes:
                nursery.start_soon(self._send)

    async def _send(self) -> None:
        import httpx  # which takes its time and memory: not without need

        async with (
            httpx.AsyncClient(timeout=self._timeout, follow_redirects=False) as client,
            trio.open_nursery() as nursery,
        ):
            for outbox in self._webhooks.outboxes:
                nursery.start_soon(self._serve, client, outbox)

    def counts(self) -> dict[str, int]:
        """What became of the events so far, of all webhooks together, as the spec names it."""
        outboxes = self._webhooks.outboxes
        return {
            "webhooks_sent": sum(outbox.sent for outbox in outboxes),
            "webhooks_dropped": sum(outbox.dropped for outbox in outboxes),
            "webhooks_waiting": sum(map(len, outboxes)),
        }

    def close(self) -> None:
        """The router is about to end: what is held back goes into the store."""
        self._webhooks.release()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(_TICK_S)
            try:
                self._webhooks.tick()
            except Exception as error:  # webhooks are no reason for the router to end
                logs.limited("webhook.tick_failed", at="error", per=type(error).__name__, exc=error)

    async def _serve(self, client: Any, outbox: Outbox) -> None:
        while True:
            body = outbox.take()
            if not body:
                awake = trio.Event()
                outbox.wake = awake.set
                await awake.wait()
                continue
            async with self._limit:
                why = await self._post(client, outbox, body)
            if not why:
                self._webhooks.heard(outbox, outbox.taken())
                continue
            wait, offset = outbox.failed()
            logs.limited("webhook.failed", app=outbox.app.id, url=outbox.hook.url, why=why, again_s=round(wait, 1))
            self._webhooks.heard(outbox, offset)
            await trio.sleep(wait)

    async def _post(self, client: Any, outbox: Outbox, body: bytes) -> str:
        """Returns: why it did not work, or nothing."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"connection-farm/{__version__}",
            "X-Pusher-Key": outbox.app.key,
            "X-Pusher-Signature": body_signature(outbox.app.secret, body),
        }
        why = "no answer in time"
        with trio.move_on_after(self._timeout):
            try:
                async with client.stream("POST", outbox.hook.url, content=body, headers=headers) as response:
                    code = response.status_code
                    why = "" if 200 <= code < 300 else f"answered {code}"
                    size = 0
                    async for part in response.aiter_raw():  # read whole, its connection can be used again
                        size += len(part)
                        if size > _MAX_ANSWER_BYTES:
                            break
            except Exception as error:  # whatever a server or a library does, the router goes on
                why = why if not why else f"{type(error).__name__}: {error}"
        return why
