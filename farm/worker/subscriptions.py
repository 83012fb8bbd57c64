"""The channels of a worker: which of its connections subscribe to which channel, and who is present there. Pure.

A channel is there as long as a connection is subscribed to it or waits to be. The router is told of the first and the
last of them, and of the first and the last connection of each user. It is never asked what is known here: a connection
that subscribes to a channel that is open is in it at once, and so is another connection of a user that is present.

As the link is ordered, a channel that is left while its answer is on the way needs no care: what was said first is
heard first, and the answer finds its question gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from farm.dialects import Members, Subscribe
from farm.worker.connection import Connection
from farm.worker.fanout import FanOuts
from router.common import messages as v

_FEW: Final = 16


class Presence:
    """Who is in a channel's channel, in the whole farm, and who of them is here."""

    __slots__ = ("entering", "members", "own")

    def __init__(self) -> None:
        self.members = Members()  # user id -> info, as far as the router has told
        self.own: dict[str, int] = {}  # user id -> his connections here, those that wait too
        self.entering: dict[str, int] | None = None  # user id -> the question whether he may


class LocalChannel:
    """A channel with connections of this worker."""

    __slots__ = ("call", "counted", "hidden", "key", "label", "open", "presence", "subscribers", "waiting")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.label = ""
        # With the user id, for presence. Most channels have very few: a tuple takes a fifth of a table's memory.
        self.subscribers: tuple[Connection, ...] | dict[Connection, str | None] = ()
        self.hidden: dict[Connection, None] | None = None
        self.waiting: dict[Connection, Subscribe] | None = None
        self.open = False  # events are heard
        self.call = 0  # the question whose answer opens it
        self.counted = 0  # subscribers the router knows of
        self.presence: Presence | None = None

    def add(self, connection: Connection, user: str | None) -> None:
        """One more subscriber."""
        subscribers = self.subscribers
        if isinstance(subscribers, tuple) and len(subscribers) < _FEW and self.presence is None:
            self.subscribers = (*subscribers, connection)
            return
        self.audience()[connection] = user

    def remove(self, connection: Connection) -> str | None:
        """One that it has leaves. Returns: his user id there."""
        subscribers = self.subscribers
        if isinstance(subscribers, tuple):
            self.subscribers = tuple(other for other in subscribers if other is not connection)
            return None
        return subscribers.pop(connection)

    def audience(self) -> dict[Connection, str | None]:
        """The subscribers with their user ids."""
        if isinstance(self.subscribers, tuple):
            self.subscribers = dict.fromkeys(self.subscribers)
        return self.subscribers


class Change(NamedTuple):
    """What the subscribers of a presence channel are to be told, all who are in it now."""

    channel: LocalChannel
    added: list[tuple[str, str]]
    """User id and info. None of these users is among the subscribers."""
    removed: list[tuple[str, str]]
    """The same."""


class Completed(NamedTuple):
    """An answer of the router. Once the change is told, `admit` has those in who waited for it."""

    channel: LocalChannel
    number: int
    status: int
    asked: list[Connection]
    """Who has asked; some may have gone."""
    refused: list[tuple[Connection, Subscribe]] | None
    """They and what they asked for, if the answer is not OK."""
    change: Change | None


class _Pending(NamedTuple):
    channel: LocalChannel
    user: str | None
    """Who wants to enter it; None: it is to be opened."""
    asked: list[Connection]


class Subscriptions:
    """All of a worker's. `tell` takes words for the router, `number` gives numbers for questions to it. What is being
    said to a channel, `fan_outs`, hears at once who comes and who goes."""

    def __init__(
        self, tell: Callable[[Any], None], number: Callable[[], int], fan_outs: FanOuts[LocalChannel, Connection]
    ) -> None:
        self._tell = tell
        self._number = number
        self._fan_outs = fan_outs
        self._subscriptions: dict[bytes, LocalChannel] = {}
        self.get = self._subscriptions.get
        self._calls: dict[int, _Pending] = {}
        self._uncounted: dict[LocalChannel, None] = {}

    def __len__(self) -> int:
        return len(self._subscriptions)

    # ------------------------------------------------------------------ in and out

    def join(self, connection: Connection, join: Subscribe) -> tuple[int, Any] | None:
        """Have a connection in a channel.

        Returns: what `replied` is to be told, status and payload; None: `replied` here will give that, to
        the question that is in `connection.ask` by then.
        """
        channel = self._subscriptions.get(join.key)
        if channel is None:
            channel = self._subscriptions[join.key] = LocalChannel(join.key)
        presence = channel.presence
        if self._in_room(channel, connection):
            self._show(channel, connection, join)
            return v.OK, None if presence is None else presence.members
        user = join.user
        if user is None:
            if channel.open:
                self._add(channel, connection, join)
                return v.OK, None
            if not channel.call:
                channel.call = self._call(channel, None)
                self._say_subscribe(channel, channel.call, "" if join.hidden else join.label)
            call = channel.call
        else:
            if presence is None:
                presence = channel.presence = Presence()
            connections = presence.own.get(user, 0)
            presence.own[user] = connections + 1
            entering = presence.entering
            call = 0 if entering is None else entering.get(user, 0)
            if connections and not call:
                self._add(channel, connection, join)
                return v.OK, presence.members
            if not call:
                call = self._call(channel, user)
                if presence.entering is None:
                    presence.entering = {}
                presence.entering[user] = call
                if not channel.open and not channel.counted and not channel.call:
                    self._say_subscribe(channel, 0, join.label)
                self._tell((v.PRESENCE_JOIN, call, channel.key, user, join.info, join.most))
        connection.call = call
        self._calls[call].asked.append(connection)
        if channel.waiting is None:
            channel.waiting = {}
        channel.waiting[connection] = join
        return None

    def _in_room(self, channel: LocalChannel, connection: Connection) -> bool:
        return connection in channel.subscribers or (channel.hidden is not None and connection in channel.hidden)

    def _call(self, channel: LocalChannel, user: str | None) -> int:
        number = self._number()
        self._calls[number] = _Pending(channel, user, [])
        return number

    def _say_subscribe(self, channel: LocalChannel, call: int, label: str) -> None:
        self._tell((v.SUBSCRIBE, call, channel.key, -1, label))
        if label:
            channel.label = label
            channel.counted = 1

    def _add(self, channel: LocalChannel, connection: Connection, join: Subscribe) -> None:
        if join.hidden:
            if channel.hidden is None:
                channel.hidden = {}
            channel.hidden[connection] = None
            return
        channel.add(connection, join.user)
        self._fan_outs.join(channel, connection)
        if not channel.counted and (join.label or channel.label):
            self._say_subscribe(channel, 0, join.label or channel.label)
        self._check_count(channel)

    def _check_count(self, channel: LocalChannel) -> None:
        if channel.label and len(channel.subscribers) != channel.counted:
            self._uncounted[channel] = None

    def _show(self, channel: LocalChannel, connection: Connection, join: Subscribe) -> None:
        """It is in the channel; only whether events reach it may be another thing now."""
        if join.hidden:
            if connection in channel.subscribers:
                self._remove_subscriber(channel, connection)
                self._add(channel, connection, join)
                self._check_count(channel)
        elif channel.hidden is not None and connection in channel.hidden:
            self._remove_hidden(channel, connection)
            self._add(channel, connection, join)

    def _remove_subscriber(self, channel: LocalChannel, connection: Connection) -> None:
        user = channel.remove(connection)
        self._fan_outs.leave(channel, connection)
        if user is not None:
            self._user_left(channel, user)

    def _remove_hidden(self, channel: LocalChannel, connection: Connection) -> None:
        assert channel.hidden is not None
        del channel.hidden[connection]
        if not channel.hidden:
            channel.hidden = None

    def leave(self, connection: Connection, key: bytes) -> None:
        """The connection goes out of a channel, or does not wait for it any more."""
        channel = self._subscriptions.get(key)
        if channel is None:
            return
        if connection in channel.subscribers:
            self._remove_subscriber(channel, connection)
        elif channel.hidden is not None and connection in channel.hidden:
            self._remove_hidden(channel, connection)
        elif channel.waiting is not None and connection in channel.waiting:
            join = channel.waiting.pop(connection)
            if not channel.waiting:
                channel.waiting = None
            if join.user is not None:
                self._user_left(channel, join.user)
        else:
            return
        self._close_if_empty(channel)

    def _close_if_empty(self, channel: LocalChannel) -> None:
        if channel.subscribers or channel.hidden is not None or channel.waiting is not None:
            self._check_count(channel)
            return
        if self._subscriptions.get(channel.key) is channel:
            del self._subscriptions[channel.key]
            self._uncounted.pop(channel, None)
            self._calls.pop(channel.call, None)
            self._tell((v.UNSUBSCRIBE, channel.key))

    def _user_left(self, channel: LocalChannel, user: str) -> None:
        presence = channel.presence
        assert presence is not None
        connections = presence.own[user] - 1
        if connections:
            presence.own[user] = connections
            return
        del presence.own[user]
        if presence.entering is not None and (call := presence.entering.pop(user, 0)):
            del self._calls[call]
        self._tell((v.PRESENCE_LEAVE, channel.key, user))

    # ------------------------------------------------------------------ what the router says

    def replied(self, number: int, status: int, payload: Any) -> Completed | None:
        """An answer has come. Returns: for whom; None: the question is not one of ours that is open.

        Those are not in the channel yet: what changes by it is for who was there before. They must be given to `admit`.
        """
        context = self._calls.pop(number, None)
        if context is None:
            return None
        channel, user, asked = context
        change: Change | None = None
        if user is None:
            channel.call = 0
        else:
            presence = channel.presence
            assert presence is not None
            if presence.entering is not None:
                presence.entering.pop(user, None)
                if not presence.entering:
                    presence.entering = None
            if status == v.OK:
                change = self._merge(channel, payload.items(), ())
            else:
                del presence.own[user]
                if (info := presence.members.pop(user, None)) is not None:
                    presence.members.made = None
                    change = Change(channel, [], [(user, info)])
        refused = None if status == v.OK else self._take(channel, number, asked)
        return Completed(channel, number, status, asked, refused, change)

    def _take(self, channel: LocalChannel, number: int, asked: list[Connection]) -> list[tuple[Connection, Subscribe]]:
        """Those who still wait for this answer wait no more."""
        found = []
        for connection in asked:
            if channel.waiting is not None and connection in channel.waiting and connection.call == number:
                found.append((connection, channel.waiting.pop(connection)))
                if not channel.waiting:
                    channel.waiting = None
        return found

    def admit(self, completed: Completed) -> list[tuple[Connection, Subscribe]]:
        """Have those in who have been answered OK. Returns: who was answered, and what it asked for."""
        channel = completed.channel
        if completed.refused is not None:
            self._close_if_empty(channel)
            return completed.refused
        channel.open = True
        found = self._take(channel, completed.number, completed.asked)
        for connection, join in found:
            self._add(channel, connection, join)
        return found

    def members(self, word: list[Any]) -> Change | None:
        """MEMBERS was heard. Returns: what that changes."""
        _, key, whole, added, removed = word
        channel = self._subscriptions.get(key)
        if channel is None or channel.presence is None:
            return None
        if whole:
            there = {user for user, _ in added}
            removed = [user for user in channel.presence.members if user not in there]
        return self._merge(channel, added, removed)

    def _merge(self, channel: LocalChannel, added: Iterable[tuple[str, str]], removed: Iterable[str]) -> Change | None:
        presence = channel.presence
        assert presence is not None
        members, own = presence.members, presence.own
        # Who is here stays, whatever the router knew when it said this: it hears, or has heard, of him.
        gone = [(user, members.pop(user)) for user in removed if user in members and user not in own]
        new = [(user, info) for user, info in added if user not in members]
        if not new and not gone:
            return None
        members.update(new)
        members.made = None
        return Change(channel, new, gone)

    def counts(self) -> None:
        """To be called once a second and when the router asks: tell it of subscribers that are more or fewer now."""
        for channel in list(self._uncounted):
            if channel.waiting is not None and not channel.subscribers:
                continue  # those who wait are nearly there
            del self._uncounted[channel]
            if len(channel.subscribers) != channel.counted:
                channel.counted = len(channel.subscribers)
                self._tell((v.COUNT, channel.key, channel.counted))

    def held(self) -> Iterator[list[list[Any]]]:
        """Everything that is held, as the words ANNOUNCE_CHANNELS have it, for a router that does not know it."""
        entries: list[list[Any]] = []
        size = 0
        for channel in self._subscriptions.values():
            label = channel.label if channel.subscribers or channel.waiting is not None else ""
            channel.counted = max(len(channel.subscribers), 1) if label else 0
            members: list[list[str]] = []
            entries.append([channel.key, label, channel.counted, members])
            size += 1
            presence = channel.presence
            for user in presence.own if presence is not None else ():
                if (info := presence.members.get(user)) is None:  # type: ignore[union-attr]
                    continue
                if size >= v.ANNOUNCE_CHUNK:
                    yield entries
                    members = []
                    entries, size = [[channel.key, label, channel.counted, members]], 1
                members.append([user, info])
                size += 1
            if size >= v.ANNOUNCE_CHUNK:
                yield entries
                entries, size = [], 0
        if entries:
            yield entries
