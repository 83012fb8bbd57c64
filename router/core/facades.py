"""What a dialect's app-server side may do with the core: send messages, keep records and logs, and ask of channels.

A dialect gets one `Core` and needs to know nothing behind it. Statuses are OK, FULL and FAILED of
`router.common.messages`; a callback is called once, at once or later, and never from another thread. What is kept is
durable when the callback says OK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.common.metrics import RouterCounters
from router.common.position import AfterOffset, LogSlice, Position
from router.core.channels import Channel, Observer
from router.core.committer import GroupCommitter
from router.store.base import ANY_VERSION, Append
from router.store.changes import Change, Changed

if TYPE_CHECKING:
    from router.core.hub import Hub

Done = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Core:
    """Everything that a dialect sees of the core."""

    messages: Messages
    records: Records
    logs: Logs
    channels: ChannelDirectory
    counters: RouterCounters


class Messages:
    """What app servers send: to devices (`push`, `withdraw`) and to channels (`publish`, `terminate`)."""

    __slots__ = (
        "_committer",
        "_hub",
        "publish",
        "publish_logged",
        "push",
        "refuse",
        "sequence",
        "terminate",
        "version",
    )

    def __init__(self, hub: Hub, committer: GroupCommitter) -> None:
        self._hub = hub
        self._committer = committer
        # The hub's own methods, as a push must not pay for another call.
        self.push = hub.push
        self.publish = hub.publish
        self.publish_logged = hub.publish_logged
        self.terminate = hub.dismiss
        self.refuse = hub.refuse
        self.sequence = hub.sequence
        self.version = hub.version

    def withdraw(self, device: bytes, slot: str, version: int = ANY_VERSION, done: Done | None = None) -> None:
        """Forget what waits in a slot of a device's inbox, if its version is at most this one; whether it was still
        there is not told."""
        self._committer.remove(device, slot, version, push=True)
        if done is not None:
            self._committer.when_durable(done, device)

    @property
    def full(self) -> bool:
        """Whether what has to be kept is refused now: as much waits as may wait, or as much is stored as may be."""
        return self._committer.full

    @property
    def crowded(self) -> bool:
        """Whether even what needs no room in the store is refused now: as much waits as may wait."""
        return self._committer.crowded

    @property
    def over(self) -> bool:
        """Whether as much is stored as may be. What removes is welcome."""
        return self._committer.over

    @property
    def devices(self) -> int:
        """Devices that are connected now."""
        return sum(session.lease.devices for session in self._hub.peers.values())


class Records:
    """Small values by space and key, each perhaps with an expiry."""

    __slots__ = ("_committer", "look_up", "read", "when_durable")

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer
        self.read = committer.read_record
        self.look_up = committer.look_up
        self.when_durable = committer.when_durable

    def put(
        self, space: str, key: bytes, value: bytes | None, expires: int, done: Done | None = None, *, own: bool = False
    ) -> None:
        """Keep a record, or delete it (None). expires: unix seconds, 0: never. own: the farm's own book-keeping, which
        does not count for what may wait of app servers."""
        self._committer.record(space, key, value, expires, push=not own)
        if done is not None:
            self._committer.when_durable(done)

    def change(
        self, space: str, key: bytes, change: Change, done: Callable[[int, Changed | None], None], *, own: bool = False
    ) -> None:
        """Change a record by what it holds (`router.store.changes`), in one step; `done` gets status and outcome."""
        self._committer.change(space, key, change, done, push=not own)


class Logs:
    """Events by channel, each with an offset that grows."""

    __slots__ = ("_committer",)

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer

    def append(self, event: Append, done: Callable[[int, AfterOffset | None], None]) -> None:
        """Append an event; `done` gets status and the position after it, None where it is refused. Subscribers are not
        told of it: see `Messages.publish`.

        Raises: ValueError for an event that no log can hold.
        """
        self._committer.append(event, done)

    def expire(self, channel: bytes, expires: int) -> None:
        """End a channel's log at this time (unix seconds; 0: only as its events do), or at once if that has passed."""
        self._committer.expire_log(channel, expires)

    def read(self, channel: bytes, position: Position, done: Callable[[int, LogSlice | None], None]) -> None:
        """Read the log from a position."""
        self._committer.read_log(channel, position, done)


class ChannelDirectory:
    """Which channels have subscribers, how many and who; only of channels that were subscribed to with a label."""

    __slots__ = ("_hub",)

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def get(self, key: bytes) -> Channel | None:
        """The channel of this address, if it has subscribers (or had, on a shard that has just been lost)."""
        return self._hub.channels.get(key)

    def names(self, dialect: str, application: str, prefix: str = "") -> Iterator[str]:
        """The occupied channels of an application whose names begin so. To be used up at once."""
        return self._hub.channels.names(dialect, application, prefix)

    def observe(self, dialect: str, observer: Observer) -> None:
        """Have this one told of what happens in the dialect's channels."""
        self._hub.channels.observe(dialect, observer)

    def when_counted(self, keys: Iterable[bytes] | None, then: Callable[[], None]) -> None:
        """Call `then` once the numbers of subscribers of these channels (None: of all) are right: workers say them
        about once a second, and are asked for what they have not said yet. A worker that does not answer in time is not
        waited for."""
        hub = self._hub
        if keys is None:
            hub.recount.ask([session.lease for session in hub.peers.values()], then)
        else:
            found = (hub.channels.get(key) for key in keys)
            hub.recount.ask([lease for channel in found if channel is not None for lease in channel.leases], then)
