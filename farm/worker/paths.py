"""Which dialect answers on which path of the device port. Pure.

A pattern is a path, or one that ends in `/*`, which stands for one last part, or in `/**`, which stands for whatever
follows, several parts or none; or a path and an argument, `/path?name`, for requests in whose query that is. The most
particular one counts: with the argument, the path itself, then `/*`, then the longest `/**`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Paths(Generic[T]):
    """Patterns and what each of them leads to.

    Raises: ValueError for a pattern that is none.
    """

    def __init__(self, patterns: Mapping[str, T]) -> None:
        self._exact: dict[str, T] = {}
        self._parents: dict[str, T] = {}  # "/app/" for "/app/*"
        self._arguments: dict[str, list[tuple[re.Pattern[str], T]]] = {}  # of paths with an argument
        trees: dict[str, T] = {}
        for pattern, target in patterns.items():
            path, asks, argument = pattern.partition("?")
            if asks and argument.isidentifier() and path.startswith("/") and "*" not in path:
                self._arguments.setdefault(path, []).append((re.compile(f"(?:^|&){argument}="), target))
                continue
            before, star, rest = pattern.partition("*")
            if not pattern.startswith("/") or asks or (star and not before.endswith("/")) or rest not in ("", "*"):
                raise ValueError(f"{pattern!r} is no path, and none that ends in /*, /** or ?argument")
            table = trees if rest else self._parents if star else self._exact
            table[before] = target
        self._trees = sorted(trees.items(), key=lambda entry: -len(entry[0]))

    def find(self, path: str, query: str = "") -> T | None:
        """Where a request with this path and query leads to."""
        if query and (arguments := self._arguments.get(path)) is not None:
            for there, target in arguments:
                if there.search(query) is not None:
                    return target
        found = self._exact.get(path)
        if found is not None:
            return found
        found = self._parents.get(path[: path.rfind("/") + 1])
        if found is not None:
            return found
        return next((target for prefix, target in self._trees if path.startswith(prefix)), None)
