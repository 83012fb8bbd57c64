"""What a process answers a balancer's probe with, on whichever port it is asked: three pages, by GET or HEAD.

/live      200 as long as the process serves its loop
/ready     200, or 503 with the reasons why nothing new should be sent here; what comes is still served
/status/   the same in the shape that PushGo's probe has
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from router import __version__

LIVE: Final = "/live"
READY: Final = "/ready"
STATUS: Final = "/status/"
PAGES: Final = frozenset((LIVE, READY, STATUS))

LEAVING: Final = "the farm is about to stop"
NO_ROOM: Final = "there is room for no connection"
NO_ROUTER: Final = "no router answers"
NO_ROUTER_HERE: Final = "no router is on this host yet"
ROUTER_AWAY: Final = "a router has not answered for long"
NOT_OWNED: Final = "the store has not confirmed in time that this router owns its part"
CLOCK_OFF: Final = "the clocks of this host and of the store are too far apart"
STORE_REFUSES: Final = "the store refuses what is to be kept"
"""The reason is in the log: these pages are public, and the path of the store is not."""


def page(path: str, reasons: Sequence[str], clients: int) -> tuple[int, bytes]:
    """Status and body of one of `PAGES`. reasons: why this process is not ready; clients: devices that it has."""
    if path == LIVE:
        return 200, _json({"status": "live"})
    well: dict[str, object] = (
        {"status": "ready"} if path == READY else {"status": "OK", "clients": clients, "version": __version__}
    )
    if not reasons:
        return 200, _json(well)
    return 503, _json({**well, "status": "not ready", "reasons": list(reasons)})


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
