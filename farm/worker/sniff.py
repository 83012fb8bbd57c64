"""Tells app servers from devices by the first bytes of a connection, where both come to the device port.

A WebSocket upgrade is a GET. So every other request is for the app servers' side, and of the GETs those for the paths
that the dialects name, or for something below them. Empty lines before a request are skipped, and so is the host
of a target in absolute form (RFC 9112 2.2 and 3.2.2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from router.common.http_head import skip_blank_lines

_ANY_PATH: Final = (b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ")
_READING: Final = (b"GET ", b"HEAD ")
_LONGEST_METHOD: Final = max(map(len, (*_ANY_PATH, *_READING)))
_SCHEMES: Final = (b"http://", b"https://")
_PATH_BEGINS: Final = re.compile(rb"[/?# \r]")
_PATH_ENDS: Final = b" ?/"
ENOUGH: Final = 512
"""This many bytes always decide it: no name of a host is longer."""


def for_app_servers(data: bytes, paths: Sequence[bytes]) -> bool | None:
    """Whether a connection that begins with these bytes is an app server's; None: they do not decide it yet.

    paths: what app servers ask for with GET and HEAD.
    """
    found = _judged(data[:ENOUGH], paths)
    return False if found is None and len(data) >= ENOUGH else found


def _judged(data: bytes, paths: Sequence[bytes]) -> bool | None:
    at = skip_blank_lines(data)
    method, blank, _ = data[at : at + _LONGEST_METHOD].partition(b" ")
    method += blank
    if not blank:
        known = (*_ANY_PATH, *_READING, b"\r\n")
        return None if any(each.startswith(method) for each in known) else False
    if method in _ANY_PATH:
        return True
    if method not in _READING:
        return False
    target = data[at + len(method) :]
    for scheme in _SCHEMES:
        start = target[: len(scheme)].lower()
        if start == scheme:
            path = _PATH_BEGINS.search(target, len(scheme))
            if path is None:
                return None
            target = target[path.start() :]
            break
        if start and scheme.startswith(start):
            return None
    if any(path.startswith(target) for path in paths):
        return None
    return any(target.startswith(path) and target[len(path)] in _PATH_ENDS for path in paths)
