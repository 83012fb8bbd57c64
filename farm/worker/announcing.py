"""What a worker announces of its channels to a router that does not know them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from farm.worker.local_channel import LocalChannel
from router.common import messages as m


def announced(channels: Iterable[LocalChannel]) -> Iterator[list[m.HeldChannel]]:
    """The channels, with their subscribers and members here, in the chunks of ANNOUNCE_CHANNELS. They count as sent."""
    entries: list[m.HeldChannel] = []
    size = 0
    for channel in channels:
        waits = channel.waiting is not None or channel.paging is not None
        label = channel.label if channel.subscribers or waits else ""
        channel.counted = max(channel.answered, 1) if label else 0
        members: list[m.Member] = []
        entries.append(m.HeldChannel(channel.key, label, channel.counted, members))
        size += 1
        presence = channel.presence
        for user in presence.own if presence is not None else ():
            if (info := presence.members.get(user)) is None:  # type: ignore[union-attr]
                continue
            if size >= m.ANNOUNCE_CHUNK:
                yield entries
                members = []
                entries, size = [m.HeldChannel(channel.key, label, channel.counted, members)], 1
            members.append((user, info))
            size += 1
        if size >= m.ANNOUNCE_CHUNK:
            yield entries
            entries, size = [], 0
    if entries:
        yield entries
