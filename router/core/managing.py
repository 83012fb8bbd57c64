"""What a user of the admin port may have a router do or show: actions by name, with their arguments checked. Pure.

The supervisor sends MANAGE to any router of the farm, and the action has what another router owns done there, as an
operation (`router.core.operations`). An answer is a mapping of plain values; `refused` makes one that says why not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from router.common import logs

BAD_REQUEST: Final = "bad_request"
NOT_FOUND: Final = "not_found"
CONFLICT: Final = "conflict"
REFUSED: Final = "refused"
UNAVAILABLE: Final = "unavailable"
FAILED: Final = "failed"
"""Codes of refusals; the admin port has a status for each."""
MAX_PAGE: Final = 1000
"""Rows of one page."""

Answer = Callable[[dict[str, Any]], None]
"""Called once, at once or later."""
Perform = Callable[[Any, Answer], None]
"""Gets the arguments, of the type that was registered, and where the answer goes. It may raise `Refusal` before it has
answered."""


class Refusal(Exception):
    """An action that is not performed. code: one of those above."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def answer(self) -> dict[str, Any]:
        """What the supervisor is answered."""
        return refused(self.code, self.message)


def refused(code: str, message: str) -> dict[str, Any]:
    """The answer that says why an action was not performed."""
    return {"error": {"code": code, "message": message}}


class Actions:
    """All that a router performs, by name."""

    __slots__ = ("_performers", "shut")

    def __init__(self) -> None:
        self._performers: dict[str, tuple[type[msgspec.Struct], Perform]] = {}
        self.shut: Callable[[], str] = str
        """Why nothing may be performed now; "": it may."""

    def register(self, name: str, arguments: type[msgspec.Struct], perform: Perform) -> None:
        """What performs the action of this name, and the type of its arguments."""
        self._performers[name] = arguments, perform

    def perform(self, name: str, arguments: dict[str, Any], answer: Answer) -> None:
        """Perform it. One that is unknown, or whose arguments are not of its type, is refused."""
        found = self._performers.get(name)
        if found is None:
            answer(refused(NOT_FOUND, f"this router has no action {name}: it is older than the supervisor"))
            return
        if why := self.shut():
            answer(refused(UNAVAILABLE, why))
            return
        kind, perform = found
        try:
            perform(msgspec.convert(arguments, kind), answer)
        except msgspec.ValidationError as wrong:
            answer(refused(BAD_REQUEST, str(wrong)))
        except Refusal as refusal:
            answer(refusal.answer)
        except Exception as error:
            logs.limited("router.action_failed", at="error", per=name, action=name, exc=error)
            answer(refused(FAILED, "a defect of the router: its log has a trace"))
