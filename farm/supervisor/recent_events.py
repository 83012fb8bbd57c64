"""The last log events of all processes of the farm, for the admin port. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec

KEPT: Final = 400
"""Events of level info, and as many of higher levels, which a flood of the former does not push out."""
_FIELDS: Final = 32
_VALUE_CHARS: Final = 1000  # of each field: the log has the whole
_NUMBERS: Final = {"worker": "shard", "router": "router"}

Event = dict[str, Any]


class RecentEvents:
    """Numbered from 1 in the order in which they have come, since the supervisor has started."""

    def __init__(self, kept: int = KEPT) -> None:
        self._normal: deque[Event] = deque(maxlen=kept)
        self._higher: deque[Event] = deque(maxlen=kept)
        self._number = 0

    def add(self, line: bytes) -> None:
        """Take one up, as `router.common.logs` writes it as JSON; anything else is passed over."""
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not isinstance(found, dict):
            return
        time, level, event = (str(found.pop(name, "")) for name in ("time", "level", "event"))
        who = str(found.pop("process", "farm"))
        if who == "farm":  # its lines are the supervisor's
            who = "supervisor"
        if (number := _NUMBERS.get(who, "")) in found:
            who = f"{who} {found.pop(number)}"
        self._number += 1
        kept = self._normal if level == "info" else self._higher
        fields = {str(name): _short(value) for name, value in list(found.items())[:_FIELDS]}
        kept.append(
            {"number": self._number, "time": time, "level": level, "event": event, "process": who, "fields": fields}
        )

    def after(self, number: int = 0, limit: int = KEPT, levels: frozenset[str] = frozenset()) -> Mapping[str, Any]:
        """The newest events behind this one, `limit` of them at most, oldest first. levels: of these only; none: of
        all. `last` is the number of the newest event of all: smaller than `number` if the supervisor has started anew.
        """
        found = [
            event
            for event in (*self._normal, *self._higher)
            if event["number"] > number and (not levels or event["level"] in levels)
        ]
        found.sort(key=lambda event: int(event["number"]))
        return {"last": self._number, "events": found[-limit:] if limit else []}


def _short(value: object) -> object:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, str) and len(value) > _VALUE_CHARS:
        return value[:_VALUE_CHARS] + "..."
    return value
