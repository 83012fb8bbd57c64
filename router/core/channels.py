"""The registry of channels that app servers may list and count: their subscribers, and their members. Pure.

The map of addresses finds the shards that an event goes to, without names. The registry has the names, for channels
that workers announce with a label, and for each the leases that hold it: how many subscribers they have, and which
users. Two rules keep presence right:

1. A user is a member as long as a lease holds it. What a dead lease held is removed `member_grace` after its death,
   a part at each tick: so a user that is back before that, on any shard, has never left.
2. After a restart the registry is rebuilt by what workers announce. Until all of them have done so, and `member_grace`
   has passed, no user counts as having left a channel that was announced; then every worker is sent all members, and
   compares.

Workers know the members of their channels, and compare: to send them something twice does no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from router.common import messages as m
from router.common.guard import guarded
from router.core.address_map import Lease
from router.core.channel import ANNOUNCED, FOUND, Channel, Member, Observer

_REAP_STEP = 10_000
"""Channels of dead leases that are looked at in one tick."""
_WHOLE_STEP = 5_000
"""Members that are sent in one tick to workers that have to compare."""

Offer = Callable[[Lease, m.ToWorker], None]


class Channels:
    """All channels with a label.

    offer: takes messages for leases. grace: how long a dead lease's members stay, in seconds. settled: when all workers
    have announced what they hold, if `settle_soon` is not called before.
    """

    def __init__(self, offer: Offer, grace: float, settled: float, monotonic: Callable[[], float]) -> None:
        self._offer = offer
        self._grace = grace
        self._settled = settled
        self._settling = True
        self._monotonic = monotonic
        self._channels: dict[bytes, Channel] = {}
        self._names: dict[str, dict[str, Channel]] = {}  # "dialect\0application" -> name -> channel
        self._applications: dict[str, str] = {}  # the same texts, each by itself
        self._held: dict[Lease, set[Channel]] = {}
        self._dead: deque[tuple[float, Lease]] = deque()
        self._announced: list[Channel] = []
        self._whole: deque[tuple[Channel, Lease | None]] = deque()  # which is sent all members; None: every lease
        self._observers: dict[str, Observer] = {}
        self.member_count = 0

    # ------------------------------------------------------------------ questions

    def __len__(self) -> int:
        return len(self._channels)

    def get(self, key: bytes) -> Channel | None:
        """The channel of this address, if it has subscribers (or had, on a shard that has just been lost)."""
        return self._channels.get(key)

    def count(self, key: bytes) -> int:
        """Subscribers of a channel, in all; 0: it is not occupied."""
        channel = self._channels.get(key)
        return 0 if channel is None else channel.count

    def members(self, key: bytes) -> dict[str, str]:
        """The members of a presence channel, with what the others are shown of them: {user id: info}."""
        channel = self._channels.get(key)
        if channel is None or channel.members is None:
            return {}
        return {user: member.info for user, member in channel.members.items()}

    def names(self, dialect: str, application: str, prefix: str = "", lost: bool = False) -> Iterator[str]:
        """The occupied channels of an application with this prefix. lost: also those that only a shard which has just
        been lost has subscribers of. Not to be used across received messages."""
        for name, channel in self._names.get(f"{dialect}\0{application}", {}).items():
            if name.startswith(prefix) and (lost or channel.count):
                yield name

    def all_names(self, dialect: str) -> list[tuple[str, list[str]]]:
        """A copy of the names of all channels of a dialect, by application, with those of a shard that was lost."""
        begin = f"{dialect}\0"
        return [(key[len(begin) :], list(names)) for key, names in self._names.items() if key.startswith(begin)]

    def number(self, dialect: str, application: str) -> int:
        """Channels of an application that have subscribers, or had, on a shard that has just been lost."""
        return len(self._names.get(f"{dialect}\0{application}", ()))

    def observe(self, dialect: str, observer: Observer) -> None:
        """Have this one called for what happens in the channels of a dialect."""
        self._observers[dialect] = observer

    def observer(self, label: str) -> Observer | None:
        """The observer of a channel."""
        return self._observers.get(label.partition("\0")[0]) if self._observers else None

    # ------------------------------------------------------------------ subscribers

    def admits(self, key: bytes, label: str) -> bool:
        """Whether a channel may have one more subscriber: asked only of the first, of its dialect's observer."""
        if key in self._channels or (observer := self.observer(label)) is None:
            return True
        return observer.admits(label)

    def subscribe(self, key: bytes, label: str, lease: Lease) -> None:
        """This lease has a subscriber of the channel, so far one."""
        channel = self._channel(key, label)
        if lease not in channel.leases:
            self._hold(channel, lease, 1)
            self._occupied(channel)

    def unsubscribe(self, key: bytes, lease: Lease) -> None:
        """The last subscriber of the channel on this lease has gone."""
        channel = self._channels.get(key)
        if channel is not None and lease in channel.leases:
            self._held[lease].discard(channel)
            self._release(channel, lease)

    def counted(self, key: bytes, subscribers: int, lease: Lease) -> None:
        """So many subscribers are on this lease."""
        if subscribers < 1:
            self.unsubscribe(key, lease)
            return
        channel = self._channels.get(key)
        if channel is not None and lease in channel.leases and channel.hold(lease, subscribers):
            self._counted(channel)

    def hold(self, key: bytes, label: str, subscribers: int, members: Iterable[tuple[str, str]], lease: Lease) -> None:
        """The lease held the channel before it joined."""
        if subscribers < 1:
            return
        channel = self._channel(key, label)
        found, subscribed = not channel.leases, lease in channel.leases  # SUBSCRIBE is repeated before this
        self._hold(channel, lease, subscribers)
        new: list[tuple[str, str]] = []
        present = False
        for user, info in members:
            present = True
            if self._add(channel, user, info, lease):
                new.append((user, info))
        if self._settling:
            if not channel.announced:
                channel.announced = FOUND if found else ANNOUNCED
                self._announced.append(channel)
            return
        if subscribed:
            self._counted(channel)
        else:
            self._occupied(channel)
        if present:
            if new:
                self._joined(channel, new)
            self._whole.append((channel, lease))  # what it was not sent while it was lost

    # ------------------------------------------------------------------ presence

    def join(self, key: bytes, user: str, info: str, most: int, lease: Lease) -> dict[str, str] | None:
        """The user has its first connection on this lease. Returns: all members, or the user alone if the lease has all
        and is sent every change; None: there are `most` already.

        To give all members to each new one would cost the square of their number when very many come at once.
        """
        channel = self._channel(key, "")
        if lease not in channel.leases:  # sent again to another router, before the channel is announced
            self._hold(channel, lease, 1)
        members = channel.members
        if members is None:
            members = channel.members = {}
        if user not in members and len(members) >= most:
            return None
        if self._add(channel, user, info, lease):
            self._joined(channel, [(user, info)])
        if lease in channel.informed:
            return {user: members[user].info}
        channel.informed = (*channel.informed, lease)
        return self.members(key)

    def leave(self, key: bytes, user: str, lease: Lease) -> None:
        """The user's last connection on this lease has gone."""
        channel = self._channels.get(key)
        if channel is not None and self._remove(channel, user, lease):
            self._left(channel, [user])

    def _add(self, channel: Channel, user: str, info: str, lease: Lease) -> bool:
        """Returns: whether the user is new."""
        if channel.members is None:
            channel.members = {}
        member = channel.members.get(user)
        if member is None:
            channel.members[user] = Member(info, lease)
            self.member_count += 1
            return True
        if lease not in member.leases:
            member.leases = (*member.leases, lease)
        return False

    def _remove(self, channel: Channel, user: str, lease: Lease) -> bool:
        """Returns: whether the user is no member any more."""
        member = channel.members.get(user) if channel.members is not None else None
        if member is None or lease not in member.leases:
            return False
        member.leases = tuple(other for other in member.leases if other is not lease)
        if member.leases:
            return False
        assert channel.members is not None
        del channel.members[user]
        self.member_count -= 1
        return True

    def _joined(self, channel: Channel, new: list[tuple[str, str]]) -> None:
        if channel.unsent_left:
            # No worker has been sent that these have left.
            known = channel.unsent_left.intersection(user for user, _ in new)
            channel.unsent_left -= known
            new = [(user, info) for user, info in new if user not in known]
            if not new:
                return
        self._send(channel, m.Members(channel.key, False, new, []))
        if (observer := self.observer(channel.label)) is not None:
            for user, _ in new:
                observer.joined(channel.label, user)

    def _left(self, channel: Channel, gone: list[str]) -> None:
        if self._settling and channel.announced:
            channel.unsent_left = (channel.unsent_left or set()).union(gone)
            return
        self._send(channel, m.Members(channel.key, False, [], gone))
        if (observer := self.observer(channel.label)) is not None:
            for user in gone:
                observer.left(channel.label, user)

    def _send(self, channel: Channel, message: m.ToWorker) -> None:
        for lease in channel.leases:
            if lease.alive:
                self._offer(lease, message)

    # ------------------------------------------------------------------ the table

    def _channel(self, key: bytes, label: str) -> Channel:
        channel = self._channels.get(key)
        if channel is None:
            channel = Channel(key)
            if label:
                self._name(channel, label)
            self._channels[key] = channel
        elif label and not channel.application:
            self._name(channel, label)
        return channel

    def _name(self, channel: Channel, label: str) -> None:
        dialect, application, name = m.label_parts(label)
        application_key = f"{dialect}\0{application}"
        names = self._names.setdefault(application_key, {})
        names[name] = channel
        channel.name = name
        channel.application = self._applications.setdefault(
            application_key, application_key
        )  # one text for all channels

    def _hold(self, channel: Channel, lease: Lease, subscribers: int) -> None:
        channel.hold(lease, subscribers)
        held = self._held.get(lease)
        if held is None:
            held = self._held[lease] = set()
        held.add(channel)

    def _release(self, channel: Channel, lease: Lease) -> None:
        """The lease does not hold the channel any more, nor its members there."""
        channel.release(lease)
        if channel.members:
            gone = [user for user in list(channel.members) if self._remove(channel, user, lease)]
            if gone:
                self._left(channel, gone)
        if channel.leases:
            self._counted(channel)
            return
        del self._channels[channel.key]
        if application_key := channel.application:
            names = self._names.get(application_key, {})
            if names.get(channel.name) is channel:  # and not another that was announced by the same name
                del names[channel.name]
                if not names:
                    del self._names[application_key]
                    del self._applications[application_key]
        if (observer := self.observer(channel.label)) is not None:
            for user in channel.unsent_left or ():
                observer.left(channel.label, user)
            observer.vacated(channel.label)

    def _occupied(self, channel: Channel) -> None:
        """One more lease holds it."""
        if (observer := self.observer(channel.label)) is not None:
            if len(channel.leases) == 1:
                observer.occupied(channel.label)
            observer.counted(channel.label, channel.count)

    def _counted(self, channel: Channel) -> None:
        if (observer := self.observer(channel.label)) is not None:
            observer.counted(channel.label, channel.count)

    # ------------------------------------------------------------------ leases and time

    def lost(self, lease: Lease) -> None:
        """The lease is dead. What it held goes later."""
        if lease in self._held:
            self._dead.append((self._monotonic() + self._grace, lease))

    def tick(self) -> None:
        """To be called a few times a second."""
        now = self._monotonic()
        if self._settling and now >= self._settled:
            self._settle()
        self._reap(now)
        budget = _WHOLE_STEP
        while self._whole and budget > 0:
            budget -= self._send_whole(*self._whole.popleft())

    def settle_soon(self) -> None:
        """All workers have announced what they hold. A user whose worker went with the router may be back in a moment,
        like one whose worker goes now."""
        self._settled = self._monotonic() + self._grace

    def _settle(self) -> None:
        """From now on, a user that is not known has left."""
        self._settling = False
        for channel in self._announced:
            if self._channels.get(channel.key) is not channel:
                continue
            gone, channel.unsent_left = channel.unsent_left, None
            if channel.members is not None:
                self._whole.append((channel, None))
            if gone and (observer := self.observer(channel.label)) is not None:
                for user in gone.difference(channel.members or ()):
                    observer.left(channel.label, user)
        for observer in self._observers.values():
            guarded("hub.tick_failed", observer.settled)
        for channel in self._announced:
            channel.announced = 0
        self._announced = []

    def _reap(self, now: float) -> None:
        budget = _REAP_STEP
        while self._dead and self._dead[0][0] <= now and budget > 0:
            lease = self._dead[0][1]
            held = self._held[lease]
            while held and budget > 0:
                budget -= 1
                self._release(held.pop(), lease)
            if not held:
                del self._held[lease]
                self._dead.popleft()

    def _send_whole(self, channel: Channel, lease: Lease | None) -> int:
        """Returns: how much of a tick that was."""
        if self._channels.get(channel.key) is not channel:
            return 1
        members = [(user, member.info) for user, member in (channel.members or {}).items()]
        message = m.Members(channel.key, True, members, [])
        if lease is None:
            self._send(channel, message)
            return 1 + len(members) * len(channel.leases)
        if lease.alive and lease in channel.leases:
            self._offer(lease, message)
        return 1 + len(members)
