"""The supervisor's links to all routers: what they know, asked of all at once, and broadcasts, set at their owner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Any

import trio

from farm.supervisor.status_link import StatusLink
from router.common.curve import ClusterKey
from router.common.partitions import BROADCASTS, fixed_owners, partition

Row = dict[str, Any]


class Answers:
    """What the routers that do answer have answered. `of`: their status by number."""

    def __init__(
        self, of: Mapping[int, Mapping[str, Any]], routers: int, others: Collection[Mapping[str, Any]] = ()
    ) -> None:
        """routers: how many there are here. others: what routers of other hosts have answered."""
        self.of = of
        self._answered = len(of) + len(others)
        self.complete = len(of) == routers and self._answered > 0
        """Whether all have that were asked, and there was one."""
        self.workers = _once(answer["workers"] for answer in (*of.values(), *others))
        """By its pid what each worker has sent last, and how many of these routers it has joined (`links`). A worker
        sends the same numbers to all of them; `devices` are those attached to any."""

    def joined(self, pid: int) -> bool:
        """Whether this worker has joined every router that answers, and there is one."""
        return pid in self.workers and self.workers[pid]["links"] == self._answered


def _once(answers: Iterable[Sequence[Mapping[str, Any]]]) -> dict[int, Row]:
    found: dict[int, Row] = {}
    for rows in answers:
        for row in rows:
            before = found.get(row["pid"])
            if before is None:
                found[row["pid"]] = {**row, "links": 1}
                continue
            newest = min(before, row, key=_age)
            devices = before["devices"] + row["devices"]
            found[row["pid"]] = {**newest, "devices": devices, "links": before["links"] + 1}
    return found


def _age(row: Mapping[str, Any]) -> tuple[bool, float]:
    """How old a worker's numbers in a row are; where it has only just joined there are none."""
    return "memory" not in row, row["heard_s"]


class StatusLinks:
    """One `StatusLink` to each router, by its number."""

    def __init__(
        self, links: Sequence[StatusLink], placed: Callable[[], Iterable[int]], elsewhere: Callable[[], int | None]
    ) -> None:
        """placed: the numbers of the routers of this host. elsewhere: that of one on another host, which is asked while
        there is none here; None: there is none."""
        self._links = links
        self._placed = placed
        self._elsewhere = elsewhere
        self.host = ""
        """ID of this host in a cluster: its workers are asked for."""
        self.last = Answers({}, len(links))
        """The last answers of which there were any."""
        self._owner = fixed_owners(len(links))[partition(BROADCASTS)]  # of the broadcasts

    async def ask(self) -> Answers:
        """What every router of this host answers; if there is none, what one of another host knows of its workers."""
        found: dict[int, dict[str, Any]] = {}
        here = list(self._placed())
        other = None if here else self._elsewhere()

        async def ask_one(number: int) -> None:
            if (answer := await self._links[number].ask(self.host)) is not None:
                found[number] = answer

        async with trio.open_nursery() as nursery:
            for number in here if other is None else [other]:
                nursery.start_soon(ask_one, number)
        answers = Answers(found, len(here)) if other is None else Answers({}, 0, found.values())
        if found:
            self.last = answers
        return answers

    def place(self, where: Callable[[int], tuple[str, ClusterKey | None] | None], here: Container[int]) -> None:
        """Routers have moved. where: address of a router, and the key for it where it is on another host; None: nobody
        knows. here: those of this host. Of others only one is needed, and that of the broadcasts."""
        needed = {self._elsewhere(), self._owner}
        for number, link in enumerate(self._links):
            found = where(number) if number in here or number in needed else None
            link.move(*(found or (None, None)))

    async def set_broadcast(self, space: str, key: str, value: str | None) -> dict[str, Any] | None:
        """As `StatusLink.set_broadcast`."""
        return await self._links[self._owner].set_broadcast(space, key, value)

    async def manage(self, action: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """As `StatusLink.manage`, by any router: each has what it does not own done by the owner. One that has answered
        last is asked; where there is none here, one of another host."""
        here = list(self._placed())
        elsewhere = None if here else self._elsewhere()
        known = [number for number in here if number in self.last.of] or here
        number = known[0] if known else elsewhere
        return None if number is None else await self._links[number].manage(action, arguments)

    def tasks(self) -> Iterable[tuple[str, Callable[[], Awaitable[None]]]]:
        """The task that owns each of the links, with a name."""
        return [(f"status_link[{number}]", link.run) for number, link in enumerate(self._links)]

    def close(self) -> None:
        """Close the sockets."""
        for link in self._links:
            link.close()
