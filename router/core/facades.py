"""What a dialect's app-server side may do with the core: send messages, keep records and logs, and ask of channels.

A dialect gets one `Core` and needs to know nothing behind it. Statuses are OK, FULL and FAILED of
`router.common.messages`; a callback is called once, at once or later, and never from another thread. What is kept is
durable when the callback says OK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from router.common.metrics import RouterCounters
from router.common.position import AfterOffset, LogSlice, Position
from router.core.batch import RecordDone
from router.core.channels import Channels
from router.core.committer import GroupCommitter
from router.core.operations import Operations
from router.core.publishing import Messages
from router.core.recount import Recount
from router.core.sessions import Sessions
from router.store.base import Append, LogSize
from router.store.changes import Change, Changed

Done = Callable[[int], None]
LookUp = Callable[[str, bytes, RecordDone], None]


@dataclass(frozen=True, slots=True)
class Core:
    """Everything that a dialect sees of the core. All but `operations` knows only what this router owns."""

    messages: Messages
    records: Records
    logs: Logs
    channels: ChannelDirectory
    operations: Operations
    counters: RouterCounters


class Records:
    """Small values by space and key, each perhaps with an expiry."""

    __slots__ = ("_committer", "look_up", "read", "when_durable")

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer
        self.read = committer.read_record
        self.look_up: LookUp = committer.look_up
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
        sent it: see `Messages.publish`.

        Raises: ValueError for an event that no log can hold.
        """
        self._committer.append(event, done)

    def expire(self, channel: bytes, expires: int) -> None:
        """End a channel's log at this time (unix seconds; 0: only as its events do), or at once if that has passed."""
        self._committer.expire_log(channel, expires)

    def read(self, channel: bytes, position: Position, done: Callable[[int, LogSlice | None], None]) -> None:
        """Read the log from a position."""
        self._committer.read_log(channel, position, done)

    def sizes(self, channels: list[bytes], done: Callable[[int, dict[bytes, LogSize]], None]) -> None:
        """Read how much the logs of these channels hold; `done` gets those that there are."""
        self._committer.read_log_sizes(channels, done)


class ChannelDirectory:
    """Which channels have subscribers, how many, and their members; only channels that have a label."""

    __slots__ = ("_channels", "_recount", "_sessions", "all_names", "get", "names", "number", "observe", "unsettled")

    def __init__(self, channels: Channels, sessions: Sessions, recount: Recount, unsettled: bool) -> None:
        self._channels = channels
        self._sessions = sessions
        self._recount = recount
        self.get = channels.get
        self.names = channels.names
        self.all_names = channels.all_names
        self.number = channels.number
        self.observe = channels.observe
        self.unsettled = unsettled
        """Whether this router waits for workers as it begins: then `Observer.settled` says when it does no more."""

    def when_counted(self, keys: Iterable[bytes] | None, then: Callable[[], None]) -> None:
        """Call `then` once the numbers of subscribers of these channels (None: of all) are right: workers send them
        about once a second, and are asked for what they have not sent yet. A worker that does not answer in time is not
        waited for."""
        if keys is None:
            self._recount.ask(self._sessions.leases, then)
        else:
            found = (self._channels.get(key) for key in keys)
            self._recount.ask([lease for channel in found if channel is not None for lease in channel.leases], then)
