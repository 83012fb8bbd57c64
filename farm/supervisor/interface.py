"""What a supervisor and the code that it starts have to agree on, and its version. They are not always of one release:
a reload replaces workers and routers, and not the supervisor.

The version covers which descriptors a process inherits and in which order, what is sent on its line in either
direction, what its exit codes mean, and what the supervisor reads of a router's status. The link between workers and
routers has one of its own, and the supervisor speaks it too.

The supervisor names the versions that it speaks in a table beside the settings, the code names its own when it is
ready, and each refuses what it cannot work with: nothing has been replaced then. Settings are tables by name, so a
section or an option that one of the two does not know needs no new version (`router.common.options.from_mapping`).

A supervisor of 0.1.0 names nothing. This code works under it: the socket for log events, which came while that version
was made, is known by its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from router.common.messages import LOWEST_PROTOCOL, PROTOCOL

INTERFACE: Final = 1
"""It goes up with every change that the version before would not understand."""
LOWEST_INTERFACE: Final = 1
"""The oldest that is still spoken, by the supervisor and by the code that it starts."""

_TABLE: Final = "supervisor"  # beside those of the settings
_LINK: Final = "link"
_INTERFACE: Final = "interface"
_NAMES: Final = {
    _INTERFACE: "the interface between supervisor and processes",
    _LINK: "the link between workers and routers",
}
_RESTART: Final = "this version needs a restart (farm drain, then farm start): "
_UNNAMED: Final = "it does not say which versions of {} it speaks, as none before 1.0.0 does"
_DIFFERS: Final = "it speaks versions {}-{} of {}, {} that runs {}-{}"
_SUPERVISOR: Final = "the supervisor"
_CODE: Final = "the code"


def for_code(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What code is started with: the settings, and what this supervisor speaks."""
    return {**tables, _TABLE: of_code()}


def of_code() -> dict[str, Any]:
    """What this release says of itself."""
    return {_LINK: [LOWEST_PROTOCOL, PROTOCOL], _INTERFACE: [LOWEST_INTERFACE, INTERFACE]}


def why_not_run(code: Mapping[str, Any]) -> str:
    """Why this supervisor cannot run code that says this of itself; "": it can."""
    return _why(code, of_code(), _SUPERVISOR, (_INTERFACE, _LINK))


def why_not_under(tables: Mapping[str, Any]) -> str:
    """Why this code cannot run under the supervisor that has started it with these tables; "": it can."""
    supervisor = tables.get(_TABLE)
    return "" if supervisor is None else _why(of_code(), supervisor, _SUPERVISOR, (_INTERFACE, _LINK))


def why_not_beside(code: Mapping[str, Any], running: Mapping[str, Any]) -> str:
    """Why processes of code that says this of itself cannot work with those of the code that runs; "": they can."""
    return _why(code, running, _CODE, (_LINK,))


def _why(new: Mapping[str, Any], running: Mapping[str, Any], what: str, of: tuple[str, ...]) -> str:
    for name in of:
        if name not in new:
            return _RESTART + _UNNAMED.format(_NAMES[name])
        (lowest, highest), (least, most) = new[name], running[name]
        if lowest > most or highest < least:
            return _RESTART + _DIFFERS.format(lowest, highest, _NAMES[name], what, least, most)
    return ""
