"""Whether a worker should get new connections, and what it answers a balancer's probe on the device port with."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from farm.transports.request import Refusal, Request
from farm.worker.link import WorkerLink
from router.common import health
from router.common.refusals import OTHER_METHOD
from router.common.settings import LinkOptions

_MISSED_BEATS: Final = 4
"""A router that owes so many answers to beats does not answer."""


class Health:
    """The reasons against new connections here, other than a lack of room."""

    def __init__(self, link: WorkerLink, options: LinkOptions, monotonic: Callable[[], float]) -> None:
        self._link = link
        self._patience = _MISSED_BEATS * options.heartbeat
        self._monotonic = monotonic
        self.leaving = False
        """Whether this worker is about to stop."""
        self.refusing = ""
        """Why the store refuses writes, as the router reports it; "": it does not."""

    @property
    def lag(self) -> float:
        """How far the router is behind, in seconds."""
        return self._link.lag

    def reasons(self, full: bool) -> list[str]:
        """Why nothing new should be sent here; empty: all is well."""
        link = self._link
        found = [health.LEAVING] if self.leaving else []
        if full:
            found.append(health.NO_ROOM)
        if not link.joined or self._monotonic() - link.last_heard > self._patience:
            found.append(health.NO_ROUTER)
        elif self.refusing:
            found.append(self.refusing)
        return found

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
