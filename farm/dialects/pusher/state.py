"""What a Pusher session refers to: its application on this worker, and state that few connections need."""

from __future__ import annotations

from typing import Final

from farm.dialects.pusher.commands import User
from router.common.metrics import WorkerCounters
from router.dialects.pusher.applications import App
from router.dialects.pusher.protocol import PusherOptions

_NEVER: Final = float("-inf")


class LocalApp:
    """An application as one worker has it: what all of its connections share."""

    __slots__ = ("app", "connections", "counters", "options", "webhook_events")

    def __init__(self, app: App, options: PusherOptions, counters: WorkerCounters) -> None:
        self.app = app
        self.options = options
        self.counters = counters
        self.connections = 0
        self.webhook_events = frozenset(event for hook in app.webhooks for event in hook.events)


class Watching:
    """A watchlist whose users are being looked up, one after the other."""

    __slots__ = ("offline", "online", "pending")

    def __init__(self, users: list[str]) -> None:
        self.pending = users
        self.online: list[str] = []
        self.offline: list[str] = []


class Extra:
    """State that most connections do not need."""

    __slots__ = ("granted", "hidden", "info", "members", "second", "sent", "signing", "user", "watching")

    def __init__(self) -> None:
        self.granted: frozenset[str] | None = None  # channels that the main server has named
        self.user = ""  # ID of the user who is signed in
        self.info = ""
        self.signing: tuple[str, str, User, str] | None = (
            None  # a sign-in under way: ID, info, the data read and as it was sent
        )
        self.watching: Watching | None = None
        self.hidden = 0  # channels that the device has not asked for
        self.members: tuple[tuple[bytes, bytes], ...] = ()  # its user in each presence channel, as JSON
        self.second = _NEVER  # when the current second of the limit of client events began
        self.sent = 0  # client events in it

    def member(self, key: bytes) -> bytes | None:
        """The ID of its user in a presence channel, as JSON."""
        return next((user for channel, user in self.members if channel == key), None)
