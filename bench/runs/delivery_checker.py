"""Checks a run in which devices lose their connection and come back: which push arrived, perhaps later. Pure.

The promise is that a device gets the newest accepted version of each channel, now or when it is back.
So a version may be left out only if a newer one of its channel arrived and the device was away in between; and one
may come twice only if the device was away in between, for its acknowledgement may have been lost with the connection.

Feed it whatever happened since the last time, `absences` and `pushed` before `arrived`, then `settle`. It keeps what
is open, and of what is settled only the last `MEMORY_SECONDS`, so a run may take days.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from typing import Any, Final

from bench.load.samples import ACCEPTED, DATA_WRONG, DELIVERED, NO_ANSWER, STORED, Arrivals, Pushes
from bench.runs.collected import Absences

MEMORY_SECONDS: Final = 300
COUNTS: Final = (
    "sent",
    "delivered",
    "superseded",
    "refused",
    "unanswered",
    "lost",
    "duplicates",
    "unexpected",
    "wrong_data",
    "resent",
    "reordered",
    "refused_but_arrived",
)
_CHANNEL_BITS: Final = 32
_MEMORY: Final = MEMORY_SECONDS * 1_000_000


class DeliveryChecker:
    """All times in microseconds of CLOCK_MONOTONIC; a version is the time at which its push was due.

    sent = delivered + superseded + refused + unanswered + lost + stored. `lost`: accepted, its device was connected
    for the time of grace, and it did not arrive. `stored`: it waits for a device that is away, or is on its way.
    `superseded`: a newer version of its channel arrived when its device came back, or after a 202. `resent`: it came
    once more after its device had been away; `duplicates`: without that.
    """

    def __init__(self, channels: int = 1, grace: float = 5.0, since: int = 0) -> None:
        """`since`: what was pushed before is not checked; it may still come again."""
        self._channels = channels
        self._since = since
        self._grace = int(grace * 1e6)
        self._open: dict[int, int] = {}  # accepted and not arrived: its status
        self._refused: dict[int, int] = {}
        self._arrived: dict[int, int] = {}  # when
        self._newest: dict[int, int] = {}  # version that arrived, by channel
        self._away: dict[int, int] = {}  # devices, since when
        self._gone: dict[int, int] = {}  # when a device last lost its connection
        self._backs: dict[int, list[int]] = {}
        self._bereft: set[int] = set()
        self._tidied = since
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self.statuses: Counter[int] = Counter()
        self.live = array("q")
        """Latencies of what arrived while its device was connected all the time."""
        self.waited = array("q")
        """How long after its device was back each message came that had been pushed before."""
        self.complete: dict[int, int] = {}
        """When a device that was away got the last of what it had missed."""

    # ---- what happened

    def absences(self, absences: Absences) -> None:
        """Devices that lost their connection, and those that came back."""
        events = [(time, 0, device) for device, time in zip(absences.gone, absences.gone_times, strict=True)]
        events += [(time, 1, device) for device, time in zip(absences.back, absences.back_times, strict=True)]
        for time, back, device in sorted(events):
            if back:
                self._away.pop(device, None)
                self._backs.setdefault(device, []).append(time)
            else:
                self._away[device] = self._gone[device] = time

    def pushed(self, pushes: Pushes) -> None:
        """What app servers sent, and how it was answered."""
        self.statuses.update(pushes.statuses)
        self.counts["sent"] += len(pushes.statuses)
        for channel, version, status in zip(pushes.channels, pushes.versions, pushes.statuses, strict=True):
            key = version << _CHANNEL_BITS | channel
            if status in ACCEPTED:
                self._open[key] = status
            else:
                self._refused[key] = status
                self.counts["unanswered" if status == NO_ANSWER else "refused"] += 1

    def arrived(self, arrivals: Arrivals) -> None:
        """What devices received."""
        counts = self.counts
        for index, (channel, version, time) in enumerate(
            zip(arrivals.channels, arrivals.versions, arrivals.times, strict=True)
        ):
            key = version << _CHANNEL_BITS | channel
            device = channel // self._channels
            status = self._open.pop(key, None)
            if status is not None:
                counts["delivered"] += 1
                data = arrivals.data[index] if arrivals.data else 0
                if data and (data == DATA_WRONG or (status == DELIVERED and not self._was_away(device, version, time))):
                    counts["wrong_data"] += 1  # what was stored comes without data, and rightly so
            elif self._refused.pop(key, None) is not None:
                counts["refused_but_arrived"] += 1
            elif (before := self._arrived.get(key)) is not None:
                counts["resent" if self._was_away(device, before, time) else "duplicates"] += 1
                continue
            elif version < self._since or version <= self._newest.get(channel, 0):
                counts["resent"] += 1  # settled so long ago that only the newest of the channel is known
                continue
            else:
                counts["unexpected"] += 1
                continue
            self._arrived[key] = time
            self._take(device, channel, version, time)

    def _take(self, device: int, channel: int, version: int, time: int) -> None:
        if version < self._newest.get(channel, 0):
            self.counts["reordered"] += 1
        else:
            self._newest[channel] = version
        back = self._back_before(device, time)
        if back > version:
            self.waited.append(time - back)
            self.complete[device] = max(time, self.complete.get(device, 0))
        else:
            self.live.append(time - version)

    def _back_before(self, device: int, time: int) -> int:
        """When the device was last back by this time; 0: never."""
        backs = self._backs.get(device)
        if not backs:
            return 0
        place = bisect_right(backs, time)
        return backs[place - 1] if place else 0

    def _was_away(self, device: int, start: int, end: int) -> bool:
        """Whether its connection ended in this time, or it came back."""
        return self._back_before(device, end) > start or start <= self._gone.get(device, -1) <= end

    # ---- what became of it

    def settle(self, now: int) -> None:
        """Judge what is open and has had its time, and forget what is old."""
        for key, status in list(self._open.items()):
            channel, version = key & (1 << _CHANNEL_BITS) - 1, key >> _CHANNEL_BITS
            device = channel // self._channels
            overtaken = self._newest.get(channel, 0) > version
            if overtaken and (status == STORED or self._was_away(device, version, now)):
                self.counts["superseded"] += 1
                del self._open[key]
            elif device not in self._away and max(version, self._back_before(device, now)) + self._grace < now:
                self.counts["lost"] += 1
                self._bereft.add(device)
                del self._open[key]
        if now > self._tidied + _MEMORY:
            self._tidied = now
            self._tidy(now - _MEMORY)

    def _tidy(self, horizon: int) -> None:
        """Forget what is settled and older than this."""
        self._arrived = {key: time for key, time in self._arrived.items() if time > horizon}
        self._refused = {key: status for key, status in self._refused.items() if key >> _CHANNEL_BITS > horizon}
        for backs in self._backs.values():
            del backs[: bisect_right(backs, horizon, 0, len(backs) - 1)]

    def owed(self) -> set[int]:
        """Devices that have not got all that was accepted for them."""
        return self._bereft | {(key & (1 << _CHANNEL_BITS) - 1) // self._channels for key in self._open}

    @property
    def open(self) -> int:
        """Accepted pushes that have not arrived."""
        return len(self._open)

    @property
    def away(self) -> int:
        """Devices that are away."""
        return len(self._away)

    @property
    def clean(self) -> bool:
        counts = self.counts
        return not (counts["lost"] or counts["duplicates"] or counts["unexpected"] or counts["wrong_data"])

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: self.counts[name] for name in COUNTS},
            "stored": self.open,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "clean": self.clean,
        }
