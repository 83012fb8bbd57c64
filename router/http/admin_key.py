"""Which clients may make requests that have no authentication of their own: those with the admin key; and while none is
set, programs on this host that come directly.

A proxy on this host differs from such a program by the header that it adds, and by that alone. So is a page in a
browser on this host: only one that comes from here is answered. Where the browser says nothing of it (GET without
TLS, for a name that is not localhost), the name is refused: it could be a page's own, which its DNS leads
here. Keys stand in query strings too, so no query is ever logged.
"""

from __future__ import annotations

import hmac
from typing import Final

from router.common import pages
from router.common.refusals import NO_ADMIN_KEY
from router.http.message import Request, Response, refusal
from router.http.percent import unquote

_BEARER: Final = b"bearer"
_PARAMETER: Final = b"admin_key"
_ADDED_BY_PROXIES: Final = (b"forwarded", b"x-forwarded-for")


class AdminKey:
    """The key of one setting."""

    __slots__ = ("_key", "_no_key", "_wrong_key")

    def __init__(self, key: str, setting: str) -> None:
        """key: "" where none is set."""
        self._key = key.encode()
        show = f"send the value of {setting} as `Authorization: Bearer KEY` or `?admin_key=KEY`"
        wrong_key = f"{NO_ADMIN_KEY.text}: {show}"
        no_key = (
            "only programs on this host may ask for this, directly and as localhost, and no page of another site, "
            f"as no admin key is set: set one, and {show}"
        )
        self._wrong_key = refusal(NO_ADMIN_KEY, wrong_key)
        self._no_key = refusal(NO_ADMIN_KEY, no_key)

    def refusal(self, request: Request) -> Response | None:
        """What a request is answered with that may not be; None: it may."""
        if self._key:
            given = _given(request)
            return None if given is not None and hmac.compare_digest(given, self._key) else self._wrong_key
        headers = request.headers
        if not _is_loopback(request.address) or any(name in headers for name in _ADDED_BY_PROXIES):
            return self._no_key
        return self._no_key if _from_elsewhere(headers) else None


def _given(request: Request) -> bytes | None:
    header = request.headers.get(b"authorization")
    if header is not None:
        scheme, _, credentials = header.partition(b" ")
        if scheme.lower() == _BEARER:
            return credentials.strip(b" ")
    for pair in request.query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == _PARAMETER:
            return unquote(value).encode()  # a plus is one: no key has blanks
    return None


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _from_elsewhere(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser may send this for a page that does not come from here."""
    host, origin = pages.host(headers), pages.page_origin(headers)
    if (origin and pages.authority(origin) != host) or headers.get(pages.SITE) in pages.OTHER_SITES:
        return True
    return pages.is_public(host)
