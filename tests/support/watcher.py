"""An observer of channels."""

from typing import Any

from router.common import messages as m


class Watcher:
    """An observer that keeps what it is called with."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.refuses = False
        self.settles = 0

    def admits(self, label: str) -> bool:
        return not self.refuses

    def occupied(self, label: str) -> None:
        self.seen.append(("occupied", m.label_parts(label)[2]))

    def vacated(self, label: str) -> None:
        self.seen.append(("vacated", m.label_parts(label)[2]))

    def counted(self, label: str, subscribers: int) -> None:
        self.seen.append(("counted", m.label_parts(label)[2], subscribers))

    def joined(self, label: str, user: str) -> None:
        self.seen.append(("entered", user))

    def left(self, label: str, user: str) -> None:
        self.seen.append(("left", user))

    def published(self, label: str, body: str, exclude: str) -> None:
        self.seen.append(("published", body, exclude))

    def happened(self, label: str, what: str, detail: str) -> None:
        self.seen.append((what, detail))

    def settled(self) -> None:
        self.settles += 1

    def take(self) -> list[tuple[Any, ...]]:
        seen, self.seen = self.seen, []
        return seen
