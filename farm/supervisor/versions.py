"""Which versions the processes of a farm run: a reload replaces all but the supervisor. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

_RESTART: Final = "restart (farm drain, then farm start)"


def version_note(supervisor: str, routers: Iterable[str], workers: Iterable[str], *, reloading: bool) -> str | None:
    """What an operator should know and do where processes run other versions than the supervisor; None: they do not.

    routers, workers: of each process; "": it is not known, and says nothing here.
    """
    of = {"routers": _all(routers), "workers": _all(workers)}
    found = set().union(*of.values())
    if found <= {supervisor}:
        return None
    told = ", ".join(f"{kind} {' and '.join(sorted(of[kind]))}" for kind in of if of[kind])
    if reloading:
        remedy = "a reload is under way"
    elif len(found) > 1:
        remedy = f"farm reload makes routers and workers alike, a {_RESTART} the supervisor too"
    else:
        remedy = f"{_RESTART} to run the supervisor at {found.pop()} too"
    return f"supervisor {supervisor}, {told}: {remedy}"


def counted(status: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """How many processes of a status run: by kind and version. "": it is not known."""
    found = {("supervisor", str(status["version"])): 1}
    for kind, rows in (("router", status["routers"]), ("worker", status["workers"])):
        for row in rows:
            if row.get("pid") is not None:
                name = (kind, row.get("version", ""))
                found[name] = found.get(name, 0) + 1
    return found


def _all(versions: Iterable[str]) -> set[str]:
    return {version for version in versions if version}
