"""Messages of workers about channels, and their requests for records. Pure."""

from __future__ import annotations

from collections.abc import Callable

from router.common import logs
from router.common import messages as m
from router.common.position import AfterOffset, LogSlice, PositionError, position
from router.core.address_map import AddressMap
from router.core.channels import Channels
from router.core.committer import GroupCommitter
from router.core.operations import Operations
from router.core.publishing import Messages
from router.core.recount import Recount
from router.core.sessions import WorkerSession
from router.store.base import Append
from router.store.changes import FULL, Change, Changed, RecordName, SetAdd, SetRemove


class Requests:
    """Each method acts on one type of message. number: of the call, None if no reply is wanted."""

    def __init__(
        self,
        committer: GroupCommitter,
        addresses: AddressMap,
        channels: Channels,
        recount: Recount,
        messages: Messages,
        operations: Operations,
        unix_time: Callable[[], float],
        most_log: int,
    ) -> None:
        """most_log: bytes that a slice of a log may have."""
        self._committer = committer
        self._map = addresses
        self._channels = channels
        self._recount = recount
        self._messages = messages
        self._operations = operations
        self._unix_time = unix_time
        self._most_log = most_log

    # ------------------------------------------------------------------ channels

    def subscribe(self, session: WorkerSession, message: m.Subscribe, number: int | None) -> None:
        """SUBSCRIBE has come."""
        channel, label = message.channel, message.label
        if label:
            m.label_parts(label)
            if number is not None and not self._channels.admits(channel, label):
                session.reply(number, m.FULL)
                return
            self._channels.subscribe(channel, label, session.lease)
        self._map.subscribe(channel, session.lease)
        session.reply(number, m.OK)

    def read_log(self, session: WorkerSession, message: m.ReadLog, number: int | None) -> None:
        """READ_LOG has come."""
        try:
            wanted = position(message.position)
        except PositionError as error:
            raise m.MessageError(str(error)) from error
        replied = session.hold()

        def read(status: int, found: LogSlice | None) -> None:
            if found is not None and sum(len(event.body) for event in found.events) > self._most_log:
                *events, _ = found.events  # the last is the one that passed the bound
                found = found._replace(events=events, more=True) if events else None
                if found is None:
                    logs.limited("hub.log_too_long", limit=self._most_log, hint="link.max_message_bytes")
                    status = m.FAILED
            session.reply(number, status, found)
            replied()

        most = min(message.most or self._most_log, self._most_log)
        self._committer.read_log(message.channel, wanted, read, most)

    def unsubscribe(self, session: WorkerSession, message: m.Unsubscribe, number: int | None) -> None:
        """UNSUBSCRIBE has come."""
        self._map.unsubscribe(message.channel, session.lease)
        self._channels.unsubscribe(message.channel, session.lease)

    def announce_channels(self, session: WorkerSession, message: m.AnnounceChannels, number: int | None) -> None:
        """ANNOUNCE_CHANNELS has come."""
        for held in message.channels:
            if held.label:
                m.label_parts(held.label)
        for held in message.channels:
            self._map.subscribe(held.channel, session.lease)
            if held.label:
                self._channels.hold(held.channel, held.label, held.subscribers, held.members, session.lease)

    def counted(self, session: WorkerSession, message: m.Counted, number: int | None) -> None:
        """COUNTED has come."""
        self._channels.counted(message.channel, message.subscribers, session.lease)

    def counts_sent(self, session: WorkerSession, message: m.CountsSent, number: int | None) -> None:
        """COUNTS_SENT has come."""
        self._recount.sent(message.number, session.lease)

    def presence_join(self, session: WorkerSession, message: m.PresenceJoin, number: int | None) -> None:
        """PRESENCE_JOIN has come."""
        members = self._channels.join(message.channel, message.user, message.info, message.most, session.lease)
        session.reply(number, m.FULL if members is None else m.OK, members)

    def presence_leave(self, session: WorkerSession, message: m.PresenceLeave, number: int | None) -> None:
        """PRESENCE_LEAVE has come."""
        self._channels.leave(message.channel, message.user, session.lease)

    def publish(self, session: WorkerSession, message: m.Publish, number: int | None) -> None:
        """PUBLISH has come."""
        known = self._channels.get(message.channel)
        if known is not None and (observer := self._channels.observer(known.label)) is not None:
            observer.published(known.label, message.body, message.exclude)
        if not message.keep:
            self._messages.publish(message.channel, message.body, message.exclude)
            session.reply(number, m.OK, 0)
            return

        def logged(status: int, end: AfterOffset | None) -> None:
            session.reply(number, status, 0 if end is None else end.offset)

        expires = int(self._unix_time()) + message.keep
        event = Append(message.channel, self._messages.sequence(), expires, message.body)
        self._messages.publish_logged(event, logged, message.exclude)

    def published(self, session: WorkerSession, message: m.Publish, number: int | None) -> None:
        """PUBLISH has come in a batch that was handled before; the reply may have been lost."""
        if message.keep:
            self.publish(session, message, number)
        else:
            session.reply(number, m.OK, 0)

    def happened(self, session: WorkerSession, message: m.Happened, number: int | None) -> None:
        """HAPPENED has come."""
        if (observer := self._channels.observer(message.label)) is not None:
            observer.happened(message.label, message.what, message.detail)

    def invoke(self, session: WorkerSession, message: m.Invoke, number: int | None) -> None:
        """INVOKE has come."""
        replied = session.hold()

        def reply(status: int, result: bytes | None) -> None:
            session.reply(number, status, result)
            replied()

        self._operations.perform(message.dialect, message.key, message.arguments, reply)

    # ------------------------------------------------------------------ records

    def record(self, session: WorkerSession, message: m.Record, number: int | None) -> None:
        """RECORD has come."""
        if number is not None and message.value is not None and self._committer.over:
            session.reply(number, m.FAILED)
            return
        expires = int(self._unix_time()) + message.ttl if message.ttl else 0
        self._committer.record(message.space, message.key, message.value, expires)
        if number is not None:
            self._committer.when_durable(lambda status: session.reply(number, status))

    def set_add(self, session: WorkerSession, message: m.SetAdd, number: int | None) -> None:
        """SET_ADD has come."""
        expires = int(self._unix_time()) + message.ttl if message.ttl else 0
        over = self._committer.over
        change = SetAdd(message.member, message.head, expires, 0 if over else message.most)
        self._change(session, number, (message.space, message.key), change, m.FAILED if over else m.FULL)

    def set_remove(self, session: WorkerSession, message: m.SetRemove, number: int | None) -> None:
        """SET_REMOVE has come."""
        self._change(session, number, (message.space, message.key), SetRemove(message.member), m.FULL)

    def _change(self, session: WorkerSession, number: int | None, name: RecordName, change: Change, full: int) -> None:
        """Change a set; `full` is the reply where it has no room."""
        replied = session.hold()

        def changed(status: int, became: Changed | None) -> None:
            answer = full if status == m.OK and became is not None and became.outcome == FULL else status
            session.reply(number, answer)
            replied()

        self._committer.change(*name, change, changed)
