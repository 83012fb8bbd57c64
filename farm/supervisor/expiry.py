"""When the certificates of a farm expire: a line in the log in time, once a day. Pure."""

from __future__ import annotations

from typing import Final

from router.common import logs
from router.common.tls import date

DAY_S: Final = 86_400.0
SOON_DAYS: Final = 30
"""From then on it is said: certbot has renewed what has so long left."""
URGENT_DAYS: Final = 7


class ExpiryWatch:
    """Logs that a certificate expires soon."""

    def __init__(self) -> None:
        self._next = 0.0

    def look(self, expires: float | None, now: float) -> None:
        """To be called once in a while. expires: the first of those in use, None without TLS. Both in Unix time."""
        if expires is None or now < self._next:
            return
        left = (expires - now) / DAY_S
        if left > SOON_DAYS:
            return
        self._next = now + DAY_S
        hint = "renew the files of tls.certificate and tls.key: they are taken up as soon as they change"
        if left <= URGENT_DAYS:
            logs.warning("tls.expires_soon", expires=date(expires), days=round(left, 1), hint=hint)
        else:
            logs.event("tls.expires_soon", expires=date(expires), days=round(left, 1), hint=hint)
