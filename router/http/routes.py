"""Which handler a request is for: by its path, and where several dialects have the same path by the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from router.common.refusals import NO_ROUTE
from router.http.message import Request, Response, rejection

Reply = Callable[[Response], None]
Handler = Callable[[Request, Reply], None]
Predicate = Callable[[Request], bool]

NOT_FOUND: Final = rejection(NO_ROUTE)


@dataclass(frozen=True, slots=True)
class Route:
    """Requests whose path is `path`, or begins with it where it ends in a slash and `exact` is False."""

    path: bytes
    handler: Handler
    exact: bool = True
    claims: Predicate | None = None
    """Which of these requests: by method, query, host or another header. None: those that no other route claims."""


class Router:
    """Finds the handler of a path: exact ones by one look-up, prefixes by the path's first part."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises: ValueError if two routes that claim nothing have the same path."""
        self._exact: dict[bytes, Handler] = {}
        self._prefixes: dict[bytes, Handler] = {}
        self._longest = 0
        """Of the prefixes: no more of a path is looked at."""
        places: dict[tuple[bytes, bool], list[Route]] = {}
        for route in routes:
            places.setdefault((route.path, route.exact), []).append(route)
        for (path, exact), there in places.items():
            table = self._exact if exact else self._prefixes
            table[path] = _handler(path, there)
            if not exact:
                self._longest = max(self._longest, len(path))

    def find(self, path: bytes) -> Handler | None:
        """The handler of this path; of several prefixes the longest."""
        handler = self._exact.get(path)
        end = min(len(path), self._longest)
        while handler is None and (end := path.rfind(b"/", 0, end)) >= 0:
            handler = self._prefixes.get(path[: end + 1])
        return handler

    def route(self, path: bytes) -> bytes:
        """The path of the route that this one is of, for the log: what stands behind a prefix may be a secret."""
        if path in self._exact:
            return path
        end = min(len(path), self._longest)
        while (end := path.rfind(b"/", 0, end)) >= 0:
            if path[: end + 1] in self._prefixes:
                return path[: end + 1]
        return b""


def _handler(path: bytes, there: Iterable[Route]) -> Handler:
    """One handler for the routes of a path: their own where there is one, else one that asks them in order."""
    others = [route.handler for route in there if route.claims is None]
    if len(others) > 1:
        raise ValueError(f"two dialects claim {path.decode()}")
    claimed = [(route.claims, route.handler) for route in there if route.claims is not None]
    if not claimed:
        return others[0]

    def ask(request: Request, reply: Reply) -> None:
        for claims, handler in claimed:
            if claims(request):
                handler(request, reply)
                return
        if others:
            others[0](request, reply)
        else:
            reply(NOT_FOUND)

    return ask
