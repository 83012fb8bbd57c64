"""The supervisor's links to all routers: what they know, asked of all at once, and broadcasts, set at their owner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import trio

from farm.supervisor.status_link import StatusLink
from router.common.partitions import BROADCASTS, fixed_owners, partition

Row = dict[str, Any]


class Answers:
    """What the routers that do answer have answered. `of`: their status by number."""

    def __init__(self, of: Mapping[int, Mapping[str, Any]], routers: int) -> None:
        """routers: how many were asked."""
        self.of = of
        self.complete = len(of) == routers
        self.workers = _once(answer["workers"] for answer in of.values())
        """By its pid what each worker has sent last, and how many of these routers it has joined (`links`). A worker
        sends the same numbers to all of them; `devices` are those attached to any."""

    def joined(self, pid: int) -> bool:
        """Whether this worker has joined every router that answers, and there is one."""
        return pid in self.workers and self.workers[pid]["links"] == len(self.of)


def _once(answers: Iterable[Sequence[Mapping[str, Any]]]) -> dict[int, Row]:
    found: dict[int, Row] = {}
    for rows in answers:
        for row in rows:
            before = found.get(row["pid"])
            if before is None:
                found[row["pid"]] = {**row, "links": 1}
                continue
            newest = before if before["heard_s"] <= row["heard_s"] else row
            devices = before["devices"] + row["devices"]
            found[row["pid"]] = {**newest, "devices": devices, "links": before["links"] + 1}
    return found


class StatusLinks:
    """One `StatusLink` to each router, by its number."""

    def __init__(self, links: Sequence[StatusLink], placed: Callable[[], Iterable[int]]) -> None:
        """placed: the numbers of the routers that are to be asked, those of this host."""
        self._links = links
        self._placed = placed
        self.last = Answers({}, len(links))
        """The last answers of which there were any."""
        self._broadcasts = links[fixed_owners(len(links))[partition(BROADCASTS)]]

    async def ask(self) -> Answers:
        """What every router of this host answers."""
        found: dict[int, dict[str, Any]] = {}
        asked = list(self._placed())

        async def ask_one(number: int) -> None:
            if (answer := await self._links[number].ask()) is not None:
                found[number] = answer

        async with trio.open_nursery() as nursery:
            for number in asked:
                nursery.start_soon(ask_one, number)
        answers = Answers(found, len(asked))
        if found:
            self.last = answers
        return answers

    async def set_broadcast(self, space: str, key: str, value: str | None) -> dict[str, Any] | None:
        """As `StatusLink.set_broadcast`."""
        return await self._broadcasts.set_broadcast(space, key, value)

    def tasks(self) -> Iterable[tuple[str, Callable[[], Awaitable[None]]]]:
        """The task that owns each of the links, with a name."""
        return [(f"status_link[{number}]", link.run) for number, link in enumerate(self._links)]

    def close(self) -> None:
        """Close the sockets."""
        for link in self._links:
            link.close()
