"""What Pusher's sessions refer to: the application that all of its connections share, and what few connections need."""

from __future__ import annotations

from typing import Final

from farm.dialects.pusher.commands import User
from router.common.metrics import WorkerCounters
from router.dialects.pusher.applications import App
from router.dialects.pusher.protocol import PusherOptions

_NEVER: Final = float("-inf")


class Home:
    """An application on this worker: what its sessions share."""

    __slots__ = ("app", "connections", "counters", "hears", "options")

    def __init__(self, app: App, options: PusherOptions, counters: WorkerCounters) -> None:
        self.app = app
        self.options = options
        self.counters = counters
        self.connections = 0
        self.hears = frozenset(event for hook in app.webhooks for event in hook.events)


class Watching:
    """A watchlist while it is gone through."""

    __slots__ = ("offline", "online", "unasked")

    def __init__(self, users: list[str]) -> None:
        self.unasked = users
        self.online: list[str] = []
        self.offline: list[str] = []


class More:
    """What most connections do without."""

    __slots__ = ("hidden", "info", "members", "second", "sent", "signing", "user", "watching")

    def __init__(self) -> None:
        self.user = ""  # who is signed in
        self.info = ""
        self.signing: tuple[str, str, User, str] | None = None  # who is about to be, info, and what was said
        self.watching: Watching | None = None
        self.hidden = 0  # channels that it has not asked for
        self.members: tuple[tuple[bytes, bytes], ...] = ()  # who this connection is in presence channels, as JSON
        self.second = _NEVER  # when the first client event of the current second came
        self.sent = 0  # client events since

    def member(self, key: bytes) -> bytes | None:
        """Who this connection is in a presence channel, as JSON."""
        return next((user for room, user in self.members if room == key), None)
