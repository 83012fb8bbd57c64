"""The open connections of the app servers' port, and which of them makes room for a new one."""

from __future__ import annotations

import resource
import socket
from collections import deque
from operator import attrgetter
from typing import Final, NamedTuple

from router.common import logs
from router.common.poller import READ
from router.common.settings import EndpointOptions
from router.http.http1 import HttpConnection

_SLOW_S: Final = 1.0  # after which the connection of an unfinished request may be closed to make room
_RESERVE: Final = 64
"""Descriptors that connections never take: the store, the link and the logs need some."""
_by_since = attrgetter("since")


class Client:
    """One connection of an app server."""

    __slots__ = ("fd", "held", "http", "lingering", "mask", "out", "queued", "refused", "since")

    http: HttpConnection

    def __init__(self, fd: int, now: float) -> None:
        self.fd = fd
        self.out = bytearray()
        self.mask = READ
        self.since = now  # when its state last changed: a request began, or it became idle
        self.held = 0  # bytes, as they are in the sum of all
        self.lingering = False
        self.queued = False  # for another turn
        self.refused = False  # because there are too many

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self.http.idle and not self.out and not self.lingering

    def is_slow(self, now: float) -> bool:
        """Whether its request is unfinished for too long, while it waits for no answer of ours."""
        http = self.http
        return http.in_request and not http.waiting and not self.out and now - self.since > _SLOW_S

    def has_input(self) -> bool:
        """Whether there are bytes that were not read yet, or the connection has ended: epoll will report it."""
        shell = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, self.fd)
        try:
            shell.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            shell.detach()
        return True


class Arriving(NamedTuple):
    """A connection of which no HTTP is awaited yet."""

    since: float
    address: str
    """Of the peer."""
    refused: bool
    """Whether there was no room for it."""


class Clients:
    """All of them."""

    def __init__(self, options: EndpointOptions, now: float) -> None:
        """now: the monotonic time."""
        self.by_fd: dict[int, Client] = {}
        self.arriving: dict[int, Arriving] = {}
        """Those that have their opening, by descriptor, the oldest first."""
        self.now = now
        """When this turn began."""
        self.answered_all: dict[Client, None] = {}
        """Those that linger, but for the refused ones, which take no room."""
        self.refusals = 0
        """Those that are answered 503 because there are too many, or will be."""
        self._longest_idle: deque[tuple[float, Client]] = deque()
        self._looked_for_idle = False  # in this turn
        self.limit = min(options.max_connections, max(1, _descriptors() - options.max_refusals - _RESERVE))
        if self.limit < options.max_connections:
            logs.warning(
                "http.few_descriptors",
                connections=self.limit,
                wanted=options.max_connections,
                hint="raise the limit of open files (ulimit -n, LimitNOFILE), or lower endpoint.max_connections",
            )

    def arrives(self, fd: int, arriving: Arriving) -> None:
        """A connection has its opening."""
        self.arriving[fd] = arriving
        self.refusals += arriving.refused

    def has_arrived(self, fd: int) -> Arriving:
        """It has none any more."""
        arriving = self.arriving.pop(fd)
        self.refusals -= arriving.refused
        return arriving

    def slow_arrival(self) -> int | None:
        """The descriptor of one whose opening has taken long enough to make room for another: it must have some."""
        for fd, arriving in self.arriving.items():
            if self.now - arriving.since <= _SLOW_S:
                break
            if not arriving.refused:
                return fd
        return None

    def remove(self, client: Client) -> bool:
        """Returns: whether it was open."""
        if self.by_fd.pop(client.fd, None) is None:
            return False
        self.refusals -= client.refused
        self.answered_all.pop(client, None)
        return True

    @property
    def has_room(self) -> bool:
        """Whether another can be served as it is."""
        return len(self.by_fd) + len(self.arriving) - self.refusals < self.limit

    @property
    def full(self) -> bool:
        """Whether another would be refused."""
        return not (
            self.has_room
            or self.answered_all
            or self.slow_arrival() is not None
            or any(client.idle for client in self.by_fd.values())
        )

    def begin_turn(self, now: float) -> None:
        """Those that are idle may be looked for once more."""
        self.now = now
        self._looked_for_idle = False

    def to_evict(self) -> Client | None:
        """Which is to make room: one that has all its answers, or else the one idle for longest, or else the one whose
        request has been unfinished for longest."""
        if self.answered_all:
            return next(iter(self.answered_all))
        if not self._longest_idle:
            if self._looked_for_idle:
                return None
            self._looked_for_idle = True
            clients = self.by_fd.values()
            idle = sorted((client for client in clients if client.idle), key=_by_since)
            slow = sorted((client for client in clients if client.is_slow(self.now)), key=_by_since)
            self._longest_idle = deque((client.since, client) for client in (*idle, *slow))
        while self._longest_idle:
            since, client = self._longest_idle.popleft()
            if self.by_fd.get(client.fd) is not client or client.since != since:
                continue
            if (client.idle or client.is_slow(self.now)) and not client.has_input():
                return client
        return None


def _descriptors() -> int:
    """How many this process may open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit
