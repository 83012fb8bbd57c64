"""A worker's links, one to each router of the farm.

Each has its own batches, confirmations and announcements (`farm.worker.link`), so a router that is away, or does not
keep up, holds up nothing that goes to another one. With one router there is nothing here but its link. In a cluster a
router may move to another host, and its link follows.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

import zmq

from farm.worker.link import WorkerLink
from farm.worker.routes import Routes
from router.common import logs
from router.common import messages as m
from router.common.directory import Placement
from router.common.guard import guarded
from router.common.places import Places
from router.common.settings import LinkOptions

_NONE: Final[frozenset[int]] = frozenset()


class Holder(Protocol):
    """What a worker holds, and what carries out the messages of routers."""

    def received(self, messages: list[m.ToWorker], router: int = 0) -> None:
        """Messages of this router."""

    def welcomed(self, router: int = 0) -> Iterable[tuple[list[bytes], list[tuple[int, int]]]]:
        """Its devices that are here, as ANNOUNCE has them: the link to it is new."""

    def held_channels(self, router: int = 0) -> Iterable[list[m.HeldChannel]]:
        """Its channels, as ANNOUNCE_CHANNELS has them."""

    def keeps_up(self, shut: frozenset[int]) -> None:
        """These routers do not keep up, and all others do."""


class Links:
    """All of a worker."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        places: Places,
        options: LinkOptions,
        routes: Routes,
        shard: int,
        incarnation: bytes,
        pid: int,
        holder: Callable[[], Holder],
    ) -> None:
        """places: where the routers are. holder: gives what holds the connections; it is not called before the first
        `pump`."""

        def received(router: int, messages: list[m.ToWorker]) -> None:
            holder().received(messages, router)

        def welcomed(router: int) -> Iterable[tuple[list[bytes], list[tuple[int, int]]]]:
            return holder().welcomed(router)

        def channels(router: int) -> Iterable[list[m.HeldChannel]]:
            return holder().held_channels(router)

        self._holder = holder
        self._places = places
        self._moved: set[int] = set()  # routers whose links are to follow
        self._failed: set[int] = set()  # those whose links could not
        places.look()
        self.each = [
            WorkerLink(
                context,
                places.for_workers(router),
                options,
                shard,
                incarnation,
                pid,
                partial(received, router),
                partial(welcomed, router),
                partial(channels, router),
            )
            for router in range(routes.routers)
        ]
        for link in self.each:
            link.host = places.host
        self.shut: frozenset[int] = _NONE
        """Of several routers those that do not keep up, while others do."""
        self._routes = routes
        self._several = len(self.each) > 1
        self._messages = [link.messages for link in self.each]
        self.send: Callable[[Any], None] = self._send if self._several else self._messages[0].append
        """Takes a message for the router that it goes to."""
        self._epoll: select.epoll | None = None
        self.fileno = self.each[0].fileno
        """Becomes readable when a router may have sent something."""
        if self._several or places.move:
            self._epoll = select.epoll()
            for link in self.each:
                self._epoll.register(link.fileno, select.EPOLLIN)
            self.fileno = self._epoll.fileno()

    def _send(self, message: Any) -> None:
        self._messages[self._routes.of(message)].append(message)

    def pump(self) -> None:
        """Send what there is, then receive what there is, on each of them."""
        for link in self.each:
            guarded("worker.link_failed", link.pump)
        if self._epoll is None:
            return
        if self._moved:
            self._follow()
        if self._several:
            shut = frozenset(router for router, link in enumerate(self.each) if link.saturated)
            if shut != self.shut:
                self.shut = shut
                self._holder().keeps_up(shut)

    def look(self) -> None:
        """Follow routers that have moved, as this host knows it; to be called a few times a second. Links that could
        not follow try again."""
        self._moved.update(self._failed)
        self._placed_anew(self._places.look())

    def placed(self, placements: Iterable[Placement]) -> None:
        """The same, as a router knows it: this host may be cut off from what says so."""
        self._placed_anew(self._places.heard(placements))

    def _placed_anew(self, placements: Iterable[Placement]) -> None:
        """These have changed. Their links follow at the end of the next `pump`: one of them may be receiving just
        now."""
        self._moved.update(one.number for one in placements if one.number < len(self.each))

    def _follow(self) -> None:
        moved, self._moved = self._moved, set()
        self._failed -= moved
        assert self._epoll is not None
        for router in sorted(moved):
            link, place = self.each[router], self._places.for_workers(router)
            link.host = self._places.host
            if place != link.place:
                self._epoll.unregister(link.fileno)
                guarded("worker.link_failed", link.move, place)
                self._epoll.register(link.fileno, select.EPOLLIN)
                if link.place != place:
                    self._failed.add(router)
                    continue
                where = place.address if place is not None else "unknown"
                logs.debug("link.moved", router=router, to=where)

    def beat(self, snapshot: dict[str, float]) -> None:
        """Let the routers know that this worker lives."""
        for link in self.each:
            link.beat(snapshot)

    @property
    def saturated(self) -> bool:
        """Whether no connection may send more: none of the routers keeps up."""
        return all(link.saturated for link in self.each)

    @property
    def behind(self) -> bool:
        """Whether there may be more to receive."""
        return any(link.behind for link in self.each)

    @property
    def joined(self) -> bool:
        """Whether there is a router that knows this worker."""
        return any(link.joined for link in self.each)

    @property
    def unconfirmed(self) -> int:
        """Batches that are not confirmed."""
        return sum(link.unconfirmed for link in self.each)

    @property
    def refused(self) -> int:
        """Envelopes and messages of routers that were not understood."""
        return sum(link.refused for link in self.each)

    @property
    def dropped(self) -> int:
        """Messages that could not be sent, and acknowledgements given up."""
        return sum(link.dropped for link in self.each)

    def leave(self) -> None:
        """This worker has drained: `close` follows."""
        for link in self.each:
            link.leave()

    def close(self) -> None:
        """Close them; what is queued has a second to leave."""
        for link in self.each:
            link.close()
        if self._epoll is not None:
            self._epoll.close()
