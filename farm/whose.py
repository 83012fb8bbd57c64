"""Whose a connection on the device port is where app servers come there too: its first bytes tell.

A WebSocket upgrade is a GET. So every other request is for the app servers' side, and of the GETs those that ask for
something under `/apps`.
"""

from __future__ import annotations

from typing import Final

_ANY_PATH: Final = (b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ")
_APPS: Final = (b"GET /apps", b"HEAD /apps")
_BEGINNINGS: Final = (*_ANY_PATH, *_APPS)
_PATH_ENDS: Final = b" ?/"
ENOUGH: Final = max(map(len, _BEGINNINGS)) + 1
"""So many bytes always decide it."""


def for_app_servers(data: bytes) -> bool | None:
    """Whether a connection that begins with these bytes is an app server's; None: they do not decide it yet."""
    if data.startswith(_ANY_PATH):
        return True
    for beginning in _APPS:
        if data.startswith(beginning) and len(data) > len(beginning):
            return data[len(beginning)] in _PATH_ENDS
    return None if any(beginning.startswith(data) for beginning in _BEGINNINGS) else False
