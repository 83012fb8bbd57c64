"""The connections that are in the channels of a worker: how they join and leave, and their numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from farm.dialects import Subscription
from farm.transports.websocket import WEBSOCKET
from farm.worker.catch_up import CatchUps
from farm.worker.connection import Connection
from farm.worker.fanout import FanOuts
from farm.worker.holding import Holding
from farm.worker.local_channel import LocalChannel, Part
from farm.worker.routes import Routes
from router.common import messages as m


class OpenCall(NamedTuple):
    """A call to the router that connections wait for."""

    channel: LocalChannel
    user: str | None
    """The user that is to be a member; None: the call opens the channel."""
    parts: list[Part]


class Subscribers(Holding):
    """Those of all channels. `send` takes messages for the router. `fan_outs`, what is being sent to channels, gets at
    once which subscribers come and go. most_held: bytes of events that are held for connections that wait."""

    def __init__(
        self,
        send: Callable[[Any], None],
        fan_outs: FanOuts[LocalChannel, Connection],
        most_held: int,
        routes: Routes,
    ) -> None:
        super().__init__(most_held)
        self._send = send
        self._routes = routes
        self._fan_outs = fan_outs
        self._channels: dict[bytes, LocalChannel] = {}
        self.get = self._channels.get
        self._calls: dict[int, OpenCall] = {}
        self._uncounted: dict[LocalChannel, None] = {}
        self.various: set[LocalChannel] = set()
        """Channels that have, or have had, subscribers of another transport than WebSocket."""
        self.catch_ups = CatchUps()

    def __len__(self) -> int:
        return len(self._channels)

    def _add(self, channel: LocalChannel, connection: Connection, wanted: Subscription) -> None:
        if wanted.hidden:
            channel.hide(connection)
            self._check_count(channel)
            return
        channel.add(connection, wanted.user)
        if connection.transport is not WEBSOCKET:
            self.various.add(channel)
        self._fan_outs.join(channel, connection)
        if not channel.counted and (wanted.label or channel.label):
            self._send_subscribe(channel, None, wanted.label or channel.label)
        self._check_count(channel)

    def _check_count(self, channel: LocalChannel) -> None:
        if channel.label and channel.answered != channel.counted:
            self._uncounted[channel] = None

    def _show(self, channel: LocalChannel, connection: Connection, wanted: Subscription) -> None:
        """It is in the channel already; only whether events reach it may change."""
        if wanted.hidden:
            if connection in channel.subscribers:
                self._remove_subscriber(channel, connection)
                self._add(channel, connection, wanted)
        elif channel.hidden is not None and connection in channel.hidden:
            channel.unhide(connection)
            self._add(channel, connection, wanted)

    def _remove_subscriber(self, channel: LocalChannel, connection: Connection) -> None:
        user = channel.remove(connection)
        self._fan_outs.leave(channel, connection)
        if user is not None:
            self._user_left(channel, user)

    def leave(self, connection: Connection, key: bytes) -> None:
        """The connection leaves a channel, or does not wait for it any more."""
        channel = self._channels.get(key)
        if channel is None:
            return
        if connection in channel.subscribers:
            self._remove_subscriber(channel, connection)
        elif channel.hidden is not None and connection in channel.hidden:
            channel.unhide(connection)
        elif (part := channel.waits(connection) or channel.pages(connection)) is not None:
            joining = part.joining
            joining.parts.remove(part)
            self.held_bytes -= sum(event.size for event in part.behind)
            if channel.waits(connection) is part:
                self._wait_no_more(channel, connection)
                self._settled(part, part.open)
            else:
                channel.unpage(connection)
                if not joining.parts:
                    self.catch_ups.remove(joining)
            if part.wanted.user is not None:
                self._user_left(channel, part.wanted.user)
        else:
            return
        self._close_if_empty(channel)

    def _close_if_empty(self, channel: LocalChannel) -> None:
        if not channel.empty:
            self._check_count(channel)
            return
        if self._channels.get(channel.key) is channel:
            del self._channels[channel.key]
            self.various.discard(channel)
            self._uncounted.pop(channel, None)
            self._calls.pop(channel.call, None)
            if channel.log is not None:
                self._release(channel.log)
                self.ready.extend(channel.log.take_waiting())
            self._send(m.Unsubscribe(channel.key))

    def _user_left(self, channel: LocalChannel, user: str) -> None:
        presence = channel.presence
        assert presence is not None
        if presence.left(user):
            if call := presence.entered(user):
                del self._calls[call]
            self._send(m.PresenceLeave(channel.key, user))

    def _send_subscribe(self, channel: LocalChannel, call: int | None, label: str) -> None:
        request = m.Subscribe(channel.key, label)
        self._send(request if call is None else m.Call(call, request))
        if label:
            channel.label = label
            channel.counted = 1

    def counts(self, shut: frozenset[int] = frozenset()) -> None:
        """To be called once a second and when a router asks: send the numbers of subscribers that have changed. shut:
        routers that do not keep up, and are sent theirs later."""
        for channel in list(self._uncounted):
            if shut and self._routes.owner(channel.key) in shut:
                continue
            number = channel.answered
            if not number and channel.waiting is not None:
                continue  # those that wait are nearly subscribed
            del self._uncounted[channel]
            channel.shrink()
            if number != channel.counted:
                channel.counted = number
                self._send(m.Counted(channel.key, channel.counted))
