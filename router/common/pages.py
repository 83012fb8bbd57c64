"""Which page a browser sends a request for, by the headers that it adds itself (Fetch 3.2; Fetch Metadata). Pure.

No page can forge them. A browser sends no Origin with a GET to the page's own host; then the Referer says it, and where
the page has that left out Sec-Fetch-Site says whether it is another site.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

Headers = Mapping[bytes, bytes]
"""Of a request; names in lower case."""
SITE: Final = b"sec-fetch-site"
OTHER_SITES: Final = (b"cross-site", b"same-site")
"""Values of Sec-Fetch-Site for pages of another origin."""
_URL_AUTHORITY: Final = re.compile(rb"[/?#]")
_UNSPECIFIED: Final = ("0.0.0.0", "[::")
"""Without "]". Addresses that lead here, and of which browsers say nothing with a request."""
_REMEMBERED: Final = 16  # hosts that are asked for
_PORT: Final = re.compile(r":[0-9]*\Z")


def page_origin(headers: Headers) -> str:
    """Of the page, `https://example.org`; "": that is not known, or there is none."""
    return (headers.get(b"origin") or _origin_of(headers.get(b"referer", b""))).decode("latin-1")


def _origin_of(url: bytes) -> bytes:
    """Of a page's address; empty for what is none."""
    scheme, found, rest = url.partition(b"://")
    return scheme + found + _URL_AUTHORITY.split(rest, 1)[0] if found else b""


def host(headers: Headers) -> str:
    """Whom the request is for, with a port if it is not the scheme's own."""
    return headers.get(b"host", b"").decode("latin-1").lower()


def authority(origin: str) -> str:
    """Host and port, as Host has them: without the port that the scheme has anyway."""
    scheme, _, found = origin.lower().partition("://")
    return found.removesuffix({"http": ":80", "https": ":443"}.get(scheme, "//"))


@lru_cache(_REMEMBERED)
def is_public(name: str) -> bool:
    """Whether a page of anybody may have this host (`host`) for its own: a name in the DNS, which may lead here."""
    name = _PORT.sub("", name).rstrip("]")
    label = name.rpartition(".")[2]
    return name in _UNSPECIFIED or not (label in (name, "localhost") or label.isdigit())
