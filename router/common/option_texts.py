"""Options that are texts with a meaning: each function takes a text, and returns it in the one form that the farm uses.

All raise ValueError for a text that has no such meaning; the option's `expects` says what is needed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

MAX_URL_CHARS: Final = 512
_MAX_NAME_CHARS: Final = 253  # RFC 1035, 2.3.4
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_BASE: Final = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?((?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)",
    re.IGNORECASE,
)
_QUERY: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")
_ORIGIN: Final = re.compile(r"null|[A-Za-z][A-Za-z0-9+.-]*://[!-.0-~]+")


def host(text: str) -> str:
    """An IP address (IPv6 without brackets, perhaps with a zone) or the name of a host."""
    try:
        return _checked_address(text)
    except ValueError:
        return _checked_name(text)


def host_in_lower_case(text: str) -> str:
    """As `host`, as it is compared."""
    return host(text).lower().rstrip(".")


def base_url(text: str) -> str:
    """The base of URLs: http or https, a host, perhaps a port and a path; without the slash at its end."""
    found = _BASE.fullmatch(text)
    if found is None or len(text) > MAX_URL_CHARS:
        raise ValueError(text)
    scheme, where, port, path = found.groups()
    if where.startswith("["):
        ipaddress.IPv6Address(where[1:-1])
    else:
        host(where)
    if port is not None and not 1 <= int(port) <= 65_535:
        raise ValueError(text)
    if {".", ".."}.intersection(path.split("/")):
        raise ValueError(text)
    return f"{scheme.lower()}://{where}{'' if port is None else f':{port}'}{path.rstrip('/')}"


def base_url_or_none(text: str) -> str:
    """As `base_url`; an empty text stays one."""
    return base_url(text) if text else text


def url(text: str) -> str:
    """What can be asked for: http or https, a host, perhaps a port, a path and a query."""
    base, _, query = text.partition("?")
    base_url(base)
    if len(text) > MAX_URL_CHARS or _QUERY.fullmatch(query) is None:
        raise ValueError(text)
    return text


def origin(text: str) -> str:
    """What a browser sends as Origin (RFC 6454, 6.1): scheme, host and perhaps a port, or null."""
    if _ORIGIN.fullmatch(text) is None:
        raise ValueError(text)
    return text


def key(text: str) -> str:
    """A key that stands in headers and queries: visible characters of ASCII; an empty text stays one."""
    if not all("!" <= character <= "~" for character in text):
        raise ValueError(text)
    return text


def path(text: str) -> str:
    """A path in the file system."""
    if not text.strip() or not text.isprintable():
        raise ValueError(text)
    return text


def path_or_none(text: str) -> str:
    """As `path`; an empty text stays one."""
    return path(text) if text else text


def network(text: str) -> str:
    """A network of IP addresses, 10.0.0.0/8 or fd00::/8, or one address."""
    if not text.isascii() or any(c.isspace() or c == "%" for c in text):
        raise ValueError(text)
    return str(ipaddress.ip_network(text))


def _checked_address(text: str) -> str:
    if not text.isascii() or any(c.isspace() for c in text):
        raise ValueError(text)
    ipaddress.ip_address(text)
    return text


def _checked_name(text: str) -> str:
    labels = text.removesuffix(".").split(".")
    if len(text) > _MAX_NAME_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(text)
    if labels[-1].isdigit():  # it would be taken for an IPv4 address, and is none
        raise ValueError(text)
    return text
