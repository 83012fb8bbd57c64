"""Whether a worker should get new connections, and what it answers a balancer's probe on the device port with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from farm.transports.request import Refusal, Request
from farm.worker.link import WorkerLink
from router.common import health
from router.common.refusals import OTHER_METHOD
from router.common.settings import LinkOptions

_MISSED_BEATS: Final = 4
"""A router that owes so many answers to beats does not answer."""
_LEASES: Final = 2
"""One of several that has not answered for so many leases is not on its way back."""


class Health:
    """The reasons against new connections here, other than a lack of room."""

    def __init__(self, links: Sequence[WorkerLink], options: LinkOptions, monotonic: Callable[[], float]) -> None:
        """links: to the routers, by their numbers."""
        self._links = links
        self._patience = _MISSED_BEATS * options.heartbeat
        self._away = _LEASES * options.lease
        self._monotonic = monotonic
        self.leaving = False
        """Whether this worker is about to stop."""
        self._refusing: dict[int, str] = {}

    def store_state(self, router: int, why: str) -> None:
        """Why the store of this router refuses writes, as it reports; "": it does not."""
        if why:
            self._refusing[router] = why if len(self._links) == 1 else f"{why} (router {router})"
        else:
            self._refusing.pop(router, None)

    @property
    def lag(self) -> float:
        """How far the router is behind, in seconds; of several, at least half of them. One that has just been lost is
        behind, too, and devices that need others do not wait for it; one that does not answer counts only where none
        does."""
        lags = sorted(link.lag for link in self._answering() or self._links)
        return lags[(len(lags) - 1) // 2]

    def _answering(self) -> list[WorkerLink]:
        now, patience = self._monotonic(), self._patience
        return [link for link in self._links if link.joined and now - link.last_heard <= patience]

    def reasons(self, full: bool) -> list[str]:
        """Why nothing new should be sent here; empty: all is well.

        A router that is away for a moment, one of several, is none: most devices do not need it."""
        found = [health.LEAVING] if self.leaving else []
        if full:
            found.append(health.NO_ROOM)
        if not self._answering():
            return [*found, health.NO_ROUTER]
        if self._monotonic() - min(link.last_heard for link in self._links) > self._away:
            found.append(health.ROUTER_AWAY)
        return [*found, *self._refusing.values()]

    def answer(self, request: Request, full: bool, clients: int) -> bytes:
        """The whole answer to a request for one of `router.common.health.PAGES`.

        Raises: Refusal.
        """
        if request.method not in (b"GET", b"HEAD"):
            raise Refusal.of(OTHER_METHOD, "only GET and HEAD are understood here", Allow="GET, HEAD")
        status, body = health.page(request.path, self.reasons(full), clients)
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: application/json",
            "Cache-Control: no-store",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return head if request.method == b"HEAD" else head + body
