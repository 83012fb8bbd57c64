"""A worker's channels without its process, and the router's side of them, for the tests of subscriptions."""

import itertools
from typing import Any, NamedTuple

from farm.dialects import Subscribe, Subscribed, Subscription
from farm.worker.connection import OPEN, Connection
from farm.worker.fanout import FanOuts
from farm.worker.local_channel import HeldEvent
from farm.worker.routes import Routes
from farm.worker.subscriptions import Change, Subscriptions
from router.common import messages as m

NAME = "presence-room"
LABEL = m.channel_label("pusher", "app", NAME)
KEY = m.channel_key("pusher", "app", NAME)
PLAIN = Subscription(KEY, LABEL)
HIDDEN = Subscription(KEY, hidden=True)


def present(user: str, most: int = 100) -> Subscription:
    return Subscription(KEY, LABEL, user, f'"{user}"', most)


class Answered(NamedTuple):
    """What came of an answer."""

    joins: list[tuple[Connection, Subscription, int]]
    """Connections that are answered, to what, and the status."""
    change: Change | None
    recipients: list[Connection]
    """The connections that the change is sent to."""


class Worker:
    """Channels of a worker, and what it has sent to the router."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.subscriptions = Subscriptions(
            self.messages.append, itertools.count(1).__next__, FanOuts(1000), 10_000, 1000, Routes()
        )
        self._fd = 100

    def connection(self) -> Connection:
        self._fd += 1
        connection = Connection(self._fd, 0, 0.0)
        connection.phase = OPEN
        return connection

    def sent(self) -> list[Any]:
        messages = self.messages[:]
        self.messages.clear()
        return messages

    def join(self, connection: Connection, wanted: Subscription) -> tuple[int, dict[str, str] | None] | None:
        """Returns: status and members, if they are known at once."""
        results = self.subscriptions.subscribe(connection, Subscribe((wanted,)))
        if results is None:
            return None
        ((again, status, members, _),) = results
        assert again == wanted
        return status, members

    def answer(self, number: int, status: int = m.OK, payload: Any = None) -> Answered:
        replied = self.subscriptions.replied(number, status, payload)
        assert replied
        change = replied if isinstance(replied, Change) else None
        recipients = [] if change is None else list(change.channel.subscribers)
        joins = []
        for connection, results, _ in self.admitted():
            joins += [(connection, wanted, status) for wanted, status, *_ in results]
        return Answered(joins, change, recipients)

    def receive(self, name: str, text: bytes, excluded: Connection | None = None) -> None:
        """An event of a channel that a subscriber waits for."""
        channel = self.subscriptions.get(name.encode().ljust(16))
        assert channel is not None
        self.subscriptions.hold(channel, HeldEvent(text, excluded))

    def admitted(self) -> list[tuple[Connection, list[Subscribed], list[HeldEvent]]]:
        """Complete the subscriptions whose turn it is."""
        found = []
        while (joining := self.subscriptions.next_ready()) is not None:
            results, events = self.subscriptions.complete(joining)
            if joining.connection.call == joining.number:
                joining.connection.call = 0
                found.append((joining.connection, results, events))
        return found

    @property
    def members(self) -> dict[str, str]:
        channel = self.subscriptions.get(KEY)
        assert channel is not None
        assert channel.presence is not None
        return channel.presence.members

    def member(self, user: str, *others: str) -> Connection:
        """A connection that is in the presence channel, with these others known there too."""
        connection = self.connection()
        if self.join(connection, present(user)) is None:
            *_, enter = self.sent()
            self.answer(enter.number, payload={name: f'"{name}"' for name in (*others, user)})
        assert self.sent() == []
        return connection
