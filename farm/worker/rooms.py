"""The rooms of a worker: which of its connections subscribe to which channel, and who is present there. Pure.

A room is there as long as a connection is in it or waits to be. The router is told of the first and the last of them,
and of the first and the last connection of each user. It is never asked what is known here: who joins a room that is
open is in it at once, and so is another connection of a user that is present.

As the link is ordered, a room that is left while its answer is on the way needs no care: what was said first is
heard first, and the answer finds its question gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from farm.dialects import Join
from farm.worker.connection import Connection
from router import vocabulary as v

_FEW: Final = 16


class Presence:
    """Who is in a room's channel, in the whole farm, and who of them is here."""

    __slots__ = ("entering", "members", "own")

    def __init__(self) -> None:
        self.members: dict[str, str] = {}  # user id -> info, as far as the router has told
        self.own: dict[str, int] = {}  # user id -> his connections here, those that wait too
        self.entering: dict[str, int] | None = None  # user id -> the question whether he may


class Room:
    """A channel with connections of this worker."""

    __slots__ = ("ask", "counted", "hidden", "key", "label", "open", "presence", "subscribers", "waiting")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.label = ""
        # With the user id, for presence. Most rooms have very few: a tuple takes a fifth of a table's memory.
        self.subscribers: tuple[Connection, ...] | dict[Connection, str | None] = ()
        self.hidden: dict[Connection, None] | None = None
        self.waiting: dict[Connection, Join] | None = None
        self.open = False  # events are heard
        self.ask = 0  # the question whose answer opens it
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
    """What the subscribers of a presence channel are to be told."""

    label: str
    audience: Mapping[Connection, str | None]
    """Who is to be told, each with the user id he has there; not of himself."""
    added: list[tuple[str, str]]
    """User id and info."""
    removed: list[tuple[str, str]]
    """The same."""


class Completed(NamedTuple):
    """An answer of the router, and for whom it is."""

    joins: list[tuple[Connection, Join, int, Any]]
    """Who waited, for what, and what `answered` is to be told: status and payload."""
    change: Change | None


class Rooms:
    """All of a worker's. `tell` takes words for the router, `number` gives numbers for questions to it."""

    def __init__(self, tell: Callable[[Any], None], number: Callable[[], int]) -> None:
        self._tell = tell
        self._number = number
        self._rooms: dict[bytes, Room] = {}
        self.get = self._rooms.get
        self._asks: dict[int, tuple[Room, str | None]] = {}  # the room to be opened, or who wants to enter it
        self._uncounted: dict[Room, None] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    # ------------------------------------------------------------------ in and out

    def join(self, connection: Connection, join: Join) -> tuple[int, Any] | None:
        """Have a connection in a room.

        Returns: what `answered` is to be told, status and payload; None: `answered` here will give that, to
        the question that is in `connection.ask` by then.
        """
        room = self._rooms.get(join.key)
        if room is None:
            room = self._rooms[join.key] = Room(join.key)
        presence = room.presence
        if self._in_room(room, connection):
            self._show(room, connection, join)
            return v.OK, None if presence is None else presence.members
        user = join.user
        if user is None:
            if room.open:
                self._add(room, connection, join)
                return v.OK, None
            if not room.ask:
                room.ask = self._ask(room, None)
                self._say_subscribe(room, room.ask, "" if join.hidden else join.label)
            connection.ask = room.ask
        else:
            if presence is None:
                presence = room.presence = Presence()
            connections = presence.own.get(user, 0)
            presence.own[user] = connections + 1
            entering = presence.entering
            ask = 0 if entering is None else entering.get(user, 0)
            if connections and not ask:
                self._add(room, connection, join)
                return v.OK, presence.members
            if not ask:
                ask = self._ask(room, user)
                if presence.entering is None:
                    presence.entering = {}
                presence.entering[user] = ask
                if not room.open and not room.counted and not room.ask:
                    self._say_subscribe(room, 0, join.label)
                self._tell((v.ENTER, ask, room.key, user, join.info, join.most))
            connection.ask = ask
        if room.waiting is None:
            room.waiting = {}
        room.waiting[connection] = join
        return None

    def _in_room(self, room: Room, connection: Connection) -> bool:
        return connection in room.subscribers or (room.hidden is not None and connection in room.hidden)

    def _ask(self, room: Room, user: str | None) -> int:
        number = self._number()
        self._asks[number] = (room, user)
        return number

    def _say_subscribe(self, room: Room, ask: int, label: str) -> None:
        self._tell((v.SUBSCRIBE, ask, room.key, -1, label))
        if label:
            room.label = label
            room.counted = 1

    def _add(self, room: Room, connection: Connection, join: Join) -> None:
        if join.hidden:
            if room.hidden is None:
                room.hidden = {}
            room.hidden[connection] = None
            return
        room.add(connection, join.user)
        if not room.counted and (join.label or room.label):
            self._say_subscribe(room, 0, join.label or room.label)
        self._check_count(room)

    def _check_count(self, room: Room) -> None:
        if room.label and len(room.subscribers) != room.counted:
            self._uncounted[room] = None

    def _show(self, room: Room, connection: Connection, join: Join) -> None:
        """It is in the room; only whether events reach it may be another thing now."""
        if join.hidden:
            if connection in room.subscribers:
                self._remove_subscriber(room, connection)
                self._add(room, connection, join)
                self._check_count(room)
        elif room.hidden is not None and connection in room.hidden:
            self._remove_hidden(room, connection)
            self._add(room, connection, join)

    def _remove_subscriber(self, room: Room, connection: Connection) -> None:
        user = room.remove(connection)
        if user is not None:
            self._user_left(room, user)

    def _remove_hidden(self, room: Room, connection: Connection) -> None:
        assert room.hidden is not None
        del room.hidden[connection]
        if not room.hidden:
            room.hidden = None

    def leave(self, connection: Connection, key: bytes) -> None:
        """The connection goes out of a room, or does not wait for it any more."""
        room = self._rooms.get(key)
        if room is None:
            return
        if connection in room.subscribers:
            self._remove_subscriber(room, connection)
        elif room.hidden is not None and connection in room.hidden:
            self._remove_hidden(room, connection)
        elif room.waiting is not None and connection in room.waiting:
            join = room.waiting.pop(connection)
            if not room.waiting:
                room.waiting = None
            if join.user is not None:
                self._user_left(room, join.user)
        else:
            return
        self._close_if_empty(room)

    def _close_if_empty(self, room: Room) -> None:
        if room.subscribers or room.hidden is not None or room.waiting is not None:
            self._check_count(room)
            return
        if self._rooms.get(room.key) is room:
            del self._rooms[room.key]
            self._uncounted.pop(room, None)
            self._asks.pop(room.ask, None)
            self._tell((v.UNSUBSCRIBE, room.key))

    def _user_left(self, room: Room, user: str) -> None:
        presence = room.presence
        assert presence is not None
        connections = presence.own[user] - 1
        if connections:
            presence.own[user] = connections
            return
        del presence.own[user]
        if presence.entering is not None and (ask := presence.entering.pop(user, 0)):
            del self._asks[ask]
        self._tell((v.EXIT, room.key, user))

    # ------------------------------------------------------------------ what the router says

    def answered(self, number: int, status: int, payload: Any) -> Completed | None:
        """An answer has come. Returns: for whom; None: the question is not one of ours that is open."""
        found = self._asks.pop(number, None)
        if found is None:
            return None
        room, user = found
        waiting = room.waiting
        mine = [] if waiting is None else [(c, join) for c, join in waiting.items() if c.ask == number]
        for connection, _ in mine:
            assert waiting is not None
            del waiting[connection]
        if not waiting:
            room.waiting = None
        change: Change | None = None
        result: Any = None
        presence = room.presence
        if user is None:
            room.ask = 0
        else:
            assert presence is not None
            if presence.entering is not None:
                presence.entering.pop(user, None)
                if not presence.entering:
                    presence.entering = None
            result = presence.members
            if status == v.OK:
                change = self._merge(room, payload.items(), ())
                if change is not None:  # for those who were there before
                    change = change._replace(audience=dict(room.audience())) if room.subscribers else None
            else:
                result = None
                del presence.own[user]
                if (info := presence.members.pop(user, None)) is not None:
                    change = Change(room.label, room.audience(), [], [(user, info)])
        if status == v.OK:
            room.open = True
            for connection, join in mine:
                self._add(room, connection, join)
        else:
            self._close_if_empty(room)
        return Completed([(connection, join, status, result) for connection, join in mine], change)

    def members(self, word: list[Any]) -> Change | None:
        """MEMBERS was heard. Returns: what that changes."""
        _, key, whole, added, removed = word
        room = self._rooms.get(key)
        if room is None or room.presence is None:
            return None
        if whole:
            there = {user for user, _ in added}
            removed = [user for user in room.presence.members if user not in there]
        return self._merge(room, added, removed)

    def _merge(self, room: Room, added: Iterable[tuple[str, str]], removed: Iterable[str]) -> Change | None:
        presence = room.presence
        assert presence is not None
        members, own = presence.members, presence.own
        # Who is here stays, whatever the router knew when it said this: it hears, or has heard, of him.
        gone = [(user, members.pop(user)) for user in removed if user in members and user not in own]
        new = [(user, info) for user, info in added if user not in members]
        members.update(new)
        return Change(room.label, room.audience(), new, gone) if new or gone else None

    def counts(self) -> None:
        """To be called once a second and when the router asks: tell it of subscribers that are more or fewer now."""
        for room in list(self._uncounted):
            if room.waiting is not None and not room.subscribers:
                continue  # those who wait are nearly there
            del self._uncounted[room]
            if len(room.subscribers) != room.counted:
                room.counted = len(room.subscribers)
                self._tell((v.COUNT, room.key, room.counted))

    def held(self) -> Iterator[list[list[Any]]]:
        """Everything that is held, as the words HOLD_CHANNELS have it, for a router that does not know it."""
        entries: list[list[Any]] = []
        size = 0
        for room in self._rooms.values():
            label = room.label if room.subscribers or room.waiting is not None else ""
            room.counted = max(len(room.subscribers), 1) if label else 0
            members: list[list[str]] = []
            entries.append([room.key, label, room.counted, members])
            size += 1
            presence = room.presence
            for user in presence.own if presence is not None else ():
                if (info := presence.members.get(user)) is None:  # type: ignore[union-attr]
                    continue
                if size >= v.HOLD_CHUNK:
                    yield entries
                    members = []
                    entries, size = [[room.key, label, room.counted, members]], 1
                members.append([user, info])
                size += 1
            if size >= v.HOLD_CHUNK:
                yield entries
                entries, size = [], 0
        if entries:
            yield entries
