"""The Date header of answers (RFC 9110 6.6.1): made once a second."""

from __future__ import annotations

import time
from email.utils import formatdate

_made = (0, "")


def http_date() -> str:
    """Now, as `Sun, 06 Nov 1994 08:49:37 GMT`. The same object all second long."""
    global _made  # noqa: PLW0603
    now = int(time.time())
    if now != _made[0]:
        _made = (now, formatdate(now, usegmt=True))
    return _made[1]
