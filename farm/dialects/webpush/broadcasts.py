"""The broadcasts that the router has sent to this worker, and which of them devices follow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

from farm.dialects import BroadcastTracker, Effects, Session
from router.common import messages as m
from router.dialects.webpush.protocol import WebPushOptions

NOT_FOUND: Final = "Broadcast not found"
NOT_FOLLOWED: Final = "Broadcast cannot be followed now"


class Following:
    """A set of broadcast IDs, shared by all devices that follow just these, and forgotten with the last of them."""

    __slots__ = ("__weakref__", "ids")

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids


class Broadcasts(BroadcastTracker):
    """The broadcasts as the router last sent them, and the sets that devices follow."""

    def __init__(self, options: WebPushOptions, session_type: type[Session]) -> None:
        self._options = options
        self._session_type = session_type
        self._known: dict[str, tuple[str, int]] = {}  # ID -> version, number of the change that set it
        self._unrenewed: set[str] = set()  # of those, what a router that came back has not sent again
        self._sets: WeakValueDictionary[tuple[str, ...], Following] = WeakValueDictionary()
        self.changes = 0

    def renewed(self) -> None:
        """The router will send everything again."""
        self._unrenewed = set(self._known)

    def complete(self) -> None:
        """It has: what it did not send was removed in the meantime."""
        for broadcast in self._unrenewed:
            del self._known[broadcast]
        self._unrenewed.clear()

    def changed(self, key: str, value: str | None) -> bool:
        """The router has sent a version, None for a broadcast that was removed. Returns: whether devices are
        notified."""
        self._unrenewed.discard(key)
        if value is None:
            self._known.pop(key, None)
            return False
        known = self._known.get(key)
        if known is not None and known[0] == value:
            return False  # sent again, because the link was renewed
        self.changes += 1
        self._known[key] = (value, self.changes)
        return True

    @property
    def session_type(self) -> type[Session]:
        return self._session_type

    def notify(self, session: Any) -> Effects:
        effects: Effects = session.broadcasts_changed()
        return effects

    def since(self, change: int, ids: Iterable[str]) -> dict[str, str]:
        """Those of the IDs whose version was set after that change."""
        known = self._known
        return {i: known[i][0] for i in ids if i in known and known[i][1] > change}

    def compare(self, versions: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """The newer versions of the broadcasts that a device has named, and errors for those that there are not."""
        changed: dict[str, str] = {}
        errors: dict[str, str] = {}
        for broadcast, version in versions.items():
            known = self._known.get(broadcast)
            if known is None:
                errors[broadcast] = NOT_FOUND
            elif known[0] != version:
                changed[broadcast] = known[0]
        return changed, errors

    def fault(self, versions: Mapping[str, str], followed: Following | None) -> str | None:
        """Why these cannot be followed beside those that are, if so."""
        for broadcast, version in versions.items():
            if not 0 < len(broadcast) <= m.MAX_BROADCAST_KEY or len(version) > m.MAX_BROADCAST_VALUE:
                return "a broadcast's ID or version is too long or empty"
        most = self._options.max_broadcasts
        if len(versions) > most or len(_joined(followed, versions)) > most:
            return f"more than {most} broadcasts"
        return None

    def follow(self, ids: Collection[str], followed: Following | None) -> Following | None:
        """The set of these and of those that are followed already; None if there are too many different sets."""
        joined = tuple(sorted(_joined(followed, ids)))
        found = self._sets.get(joined)
        if found is None and len(self._sets) < self._options.max_broadcast_sets:
            found = self._sets[joined] = Following(joined)
        return found


def _joined(followed: Following | None, ids: Iterable[str]) -> set[str]:
    joined = set(ids)
    if followed is not None:
        joined.update(followed.ids)
    return joined
