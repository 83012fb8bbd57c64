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
        """routers: how many there are."""
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

    def __init__(self, links: Sequence[StatusLink]) -> None:
        self._links = links
        self.last = Answers({}, len(links))
        """The last answers of which there were any."""
        self._broadcasts = links[fixed_owners(len(links))[partition(BROADCASTS)]]

    async def ask(self) -> Answers:
        """What every router answers."""
        found: dict[int, dict[str, Any]] = {}

        async def ask_one(number: int, link: StatusLink) -> None:
            if (answer := await link.ask()) is not None:
                found[number] = answer

        async with trio.open_nursery() as nursery:
            for number, link in enumerate(self._links):
                nursery.start_soon(ask_one, number, link)
        answers = Answers(found, len(self._links))
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
