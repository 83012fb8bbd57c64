"""Which other hosts of the cluster this one cannot reach, from what its routers hear. Pure.

A host counts as one that cannot be reached when none of our routers has heard any of its routers or workers for a whole
lease, though there were some to hear, and though it has said in Redis meanwhile that it lives: so one that has died
never does, nor one of which a process hangs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router.cluster.membership import Snapshot, State


class Reach:
    """What one host knows of its ways to the others. lease: seconds."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._ready: dict[tuple[int, int], float] = {}
        """Since when a router serves, as far as is known here, by its number and epoch."""

    def look(
        self, snapshot: Snapshot, me: str, answers: Iterable[Mapping[str, Any]], now: float, taken: float
    ) -> frozenset[str]:
        """IDs of the hosts that cannot be reached.

        answers: the status of each router of this host, with `silent` (for how many seconds it has not heard which
        other router) and `hosts` (how long ago it heard a worker of which host). taken: when the snapshot was.
        """
        lease = self._lease
        placed = [one for one in snapshot.placements.values() if one.state is not State.STARTING]
        self._ready = {(one.number, one.epoch): self._ready.get((one.number, one.epoch), now) for one in placed}
        settled = [one for one in placed if now - self._ready[one.number, one.epoch] > lease]
        ours = {one.number for one in settled if one.host == me}
        hears = [answer for answer in answers if answer["number"] in ours]
        if not hears:
            return frozenset()
        unheard: dict[str, float] = {}  # of each host with routers that we could hear
        for one in settled:
            if one.host != me and one.host in snapshot.members:
                silent = min(answer["silent"].get(str(one.number), 0.0) for answer in hears)
                unheard[one.host] = min(silent, unheard.get(one.host, silent))
        for answer in hears:
            for host, heard in answer["hosts"].items():
                if host in unheard:
                    unheard[host] = min(heard, unheard[host])
        since = max(0.0, now - taken)
        return frozenset(
            host for host, silent in unheard.items() if silent - snapshot.members[host].age - since > lease
        )
