"""The rooms of a worker: which of its connections subscribe to which channel, and who is present there. Pure.

A room is there as long as a connection is in it or waits to be. The router is told of the first and the last of them,
and of the first and the last connection of each user. It is never asked what is known here: who joins a room that is
open is in it at once, and so is another connection of a user that is present.

As the link is ordered, a room that is left while its answer is on the way needs no care: what was said first is
heard first, and the answer finds its question gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from farm.dialects import Join, Members
from farm.worker.connection import Connection
from farm.worker.fanout import FanOuts
from router.common import messages as v

_FEW: Final = 16


class Presence:
    """Who is in a room's channel, in the whole farm, and who of them is here."""

    __slots__ = ("entering", "members", "own")

    def __init__(self) -> None:
        self.members = Members()  # user id -> info, as far as the router has told
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
    """What the subscribers of a presence channel are to be told, all who are in it now."""

    room: Room
    added: list[tuple[str, str]]
    """User id and info. None of these users is among the subscribers."""
    removed: list[tuple[str, str]]
    """The same."""


class Completed(NamedTuple):
    """An answer of the router. Once the change is told, `admit` has those in who waited for it."""

    room: Room
    number: int
    status: int
    asked: list[Connection]
    """Who has asked; some may have gone."""
    refused: list[tuple[Connection, Join]] | None
    """They and what they asked for, if the answer is not OK."""
    change: Change | None


class _Question(NamedTuple):
    room: Room
    user: str | None
    """Who wants to enter it; None: it is to be opened."""
    asked: list[Connection]


class Rooms:
    """All of a worker's. `tell` takes words for the router, `number` gives numbers for questions to it. What is being
    said to a room, `fan_outs`, hears at once who comes and who goes."""

    def __init__(
        self, tell: Callable[[Any], None], number: Callable[[], int], fan_outs: FanOuts[Room, Connection]
    ) -> None:
        self._tell = tell
        self._number = number
        self._fan_outs = fan_outs
        self._rooms: dict[bytes, Room] = {}
        self.get = self._rooms.get
        self._asks: dict[int, _Question] = {}
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
            ask = room.ask
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
                self._tell((v.PRESENCE_JOIN, ask, room.key, user, join.info, join.most))
        connection.ask = ask
        self._asks[ask].asked.append(connection)
        if room.waiting is None:
            room.waiting = {}
        room.waiting[connection] = join
        return None

    def _in_room(self, room: Room, connection: Connection) -> bool:
        return connection in room.subscribers or (room.hidden is not None and connection in room.hidden)

    def _ask(self, room: Room, user: str | None) -> int:
        number = self._number()
        self._asks[number] = _Question(room, user, [])
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
        self._fan_outs.join(room, connection)
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
        self._fan_outs.leave(room, connection)
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
        self._tell((v.PRESENCE_LEAVE, room.key, user))

    # ------------------------------------------------------------------ what the router says

    def answered(self, number: int, status: int, payload: Any) -> Completed | None:
        """An answer has come. Returns: for whom; None: the question is not one of ours that is open.

        Those are not in the room yet: what changes by it is for who was there before. They must be given to `admit`.
        """
        question = self._asks.pop(number, None)
        if question is None:
            return None
        room, user, asked = question
        change: Change | None = None
        if user is None:
            room.ask = 0
        else:
            presence = room.presence
            assert presence is not None
            if presence.entering is not None:
                presence.entering.pop(user, None)
                if not presence.entering:
                    presence.entering = None
            if status == v.OK:
                change = self._merge(room, payload.items(), ())
            else:
                del presence.own[user]
                if (info := presence.members.pop(user, None)) is not None:
                    presence.members.made = None
                    change = Change(room, [], [(user, info)])
        refused = None if status == v.OK else self._take(room, number, asked)
        return Completed(room, number, status, asked, refused, change)

    def _take(self, room: Room, number: int, asked: list[Connection]) -> list[tuple[Connection, Join]]:
        """Those who still wait for this answer wait no more."""
        found = []
        for connection in asked:
            if room.waiting is not None and connection in room.waiting and connection.ask == number:
                found.append((connection, room.waiting.pop(connection)))
                if not room.waiting:
                    room.waiting = None
        return found

    def admit(self, completed: Completed) -> list[tuple[Connection, Join]]:
        """Have those in who have been answered OK. Returns: who was answered, and what it asked for."""
        room = completed.room
        if completed.refused is not None:
            self._close_if_empty(room)
            return completed.refused
        room.open = True
        found = self._take(room, completed.number, completed.asked)
        for connection, join in found:
            self._add(room, connection, join)
        return found

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
        if not new and not gone:
            return None
        members.update(new)
        members.made = None
        return Change(room, new, gone)

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
        """Everything that is held, as the words ANNOUNCE_CHANNELS have it, for a router that does not know it."""
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
                if size >= v.ANNOUNCE_CHUNK:
                    yield entries
                    members = []
                    entries, size = [[room.key, label, room.counted, members]], 1
                members.append([user, info])
                size += 1
            if size >= v.ANNOUNCE_CHUNK:
                yield entries
                entries, size = [], 0
        if entries:
            yield entries
