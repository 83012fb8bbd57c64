"""Where a request comes from that proxies have passed on, by its headers. Pure.

`Forwarded` (RFC 7239) and `X-Forwarded-For` list the addresses of a request's way, the nearest last. Each proxy adds
the one that it was asked by, and what stands before may be anybody's: so the right-most address that is none of our
proxies' is the client's. A client can send both headers where a proxy writes only one of them: then they disagree, and
the request is refused, since nothing says which is the proxy's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from router.common.client_address import Networks, address_text

MAX_PROXIES: Final = 32
"""On the way of a request; the farthest one's address counts as the client's where there are more."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_PAIR: Final = rb"(" + _TOKEN + rb")=(" + _TOKEN + rb"|" + _QUOTED + rb")"
_ELEMENT: Final = re.compile(rb"[\t ]*+(?:" + _PAIR + rb"(?:[\t ]*+;[\t ]*+" + _PAIR + rb")*+)?[\t ]*+(?:,|$)")
_IN_ELEMENT: Final = re.compile(_PAIR)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_NODE: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?|([0-9A-Fa-f:.]{2,45})"
)


class ForwardedError(ValueError):
    """The headers do not say where the request comes from. Its text is for who has sent it."""


def forwarded_address(peer: str, headers: Mapping[bytes, bytes], trusted: Networks) -> str:
    """The client's address as text. peer: of the connection. headers: by names in lower case, repeated ones joined by
    commas. trusted: our proxies. An address that a proxy keeps secret or does not know is that proxy's.

    Raises: ForwardedError if the headers are malformed or disagree; only where the peer is a proxy.
    """
    if peer not in trusted:
        return peer
    new = headers.get(b"forwarded")
    old = headers.get(b"x-forwarded-for")
    if new is None:
        return peer if old is None else _first_untrusted(peer, _listed(old), trusted)
    address = _first_untrusted(peer, reversed(_elements(new)), trusted)
    if old is not None and address != _first_untrusted(peer, _listed(old), trusted):
        raise ForwardedError(
            "Forwarded and X-Forwarded-For disagree: a proxy must remove the one that it does not write"
        )
    return address


def _first_untrusted(address: str, nodes: Iterable[bytes], trusted: Networks) -> str:
    """nodes: the nearest first."""
    for _, node in zip(range(MAX_PROXIES), nodes, strict=False):
        before = _address(node)
        if before is None:
            break
        address = before
        if address not in trusted:
            break
    return address


def _listed(value: bytes) -> Iterator[bytes]:
    for part in reversed(value.rsplit(b",", MAX_PROXIES)):
        yield part.strip(b" \t")


def _elements(value: bytes) -> list[bytes]:
    """What each element of Forwarded says for `for`; b"" if nothing. Raises: ForwardedError."""
    nodes = []
    at = 0
    while at < len(value):
        found = _ELEMENT.match(value, at)
        if found is None:
            raise ForwardedError("Forwarded is malformed")
        if pairs := _IN_ELEMENT.findall(value, at, found.end()):
            given = [text for name, text in pairs if name.lower() == b"for"]
            if len(given) > 1:
                raise ForwardedError("Forwarded has an element with more than one for")
            nodes.append(_unquoted(given[0]) if given else b"")
        at = found.end()
    return nodes


def _unquoted(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text[1:-1]) if text.startswith(b'"') else text


@lru_cache(1024)
def _address(node: bytes) -> str | None:
    """None: a name, or unknown. Remembered, because app servers send request after request."""
    found = _NODE.fullmatch(node)
    if found is None:
        return None
    try:
        return address_text(ipaddress.ip_address((found[1] or found[2] or found[3]).decode()))
    except ValueError:
        return None
