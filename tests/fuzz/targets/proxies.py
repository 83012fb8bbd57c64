"""What proxies in front say, and what clients put before it."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Final

import router.common.forwarded
import router.common.proxy_protocol
from fuzz.engine import Target
from router.common.client_address import Networks
from router.common.forwarded import ForwardedError, forwarded_address
from router.common.proxy_protocol import MAX_BYTES, ProxyError, ProxyHeader, parse_proxy_header

_TRUSTED: Final = Networks(("10.0.0.0/8", "fd00::/8"))
_PROXY: Final = "10.0.0.1"
_CLIENT: Final = "203.0.113.9"


def proxy_header(data: bytes) -> None:
    """The header has a length, whatever comes behind; and who waits for more of it does not wait for ever."""
    found = _outcome(data)
    if found is None:
        assert len(data) < MAX_BYTES
    elif isinstance(found, ProxyHeader):
        assert found.size <= len(data)
        assert found.address is None or str(ipaddress.ip_address(found.address)) == found.address
        assert _outcome(data[: found.size]) == found
        assert _outcome(data[: found.size - 1]) is None
    for end in (len(data) // 2, max(0, len(data) - 1)):
        assert _outcome(data[:end]) in (None, found)


def _outcome(data: bytes) -> ProxyHeader | str | None:
    try:
        return parse_proxy_header(data)
    except ProxyError as error:
        assert len(str(error)) < 100
        return "refused"


def forwarded(data: bytes) -> None:
    """Values of both headers, one a line: what stands before the proxy's own words does not count."""
    new, _, old = data.partition(b"\n")
    assert forwarded_address(_CLIENT, {b"forwarded": new, b"x-forwarded-for": old}, _TRUSTED) == _CLIENT
    assert forwarded_address(_PROXY, {b"x-forwarded-for": old + b", " + _CLIENT.encode()}, _TRUSTED) == _CLIENT
    with contextlib.suppress(ForwardedError):
        found = forwarded_address(_PROXY, {b"forwarded": new + b", for=" + _CLIENT.encode()}, _TRUSTED)
        assert found == _CLIENT
    with contextlib.suppress(ForwardedError):
        ipaddress.ip_address(forwarded_address(_PROXY, {b"forwarded": new}, _TRUSTED))
    ipaddress.ip_address(forwarded_address(_PROXY, {b"x-forwarded-for": old}, _TRUSTED))


_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
TARGETS: Final = (
    Target(
        "proxy-header",
        proxy_header,
        (router.common.proxy_protocol,),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 80\r\nGET",
            b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n",
            b"PROXY UNKNOWN\r\n",
            _SIGNATURE + b"\x21\x11\0\x0c" + bytes(12),
            _SIGNATURE + b"\x21\x21\0\x2c" + bytes(36) + b"\x20\0\x05\x01\0\0\0\0",
            _SIGNATURE + b"\x20\0\0\0",
        ),
        (_SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b"\r\n", b"::ffff:1.2.3.4", b"\x21\x31\0\xd8"),
    ),
    Target(
        "forwarded",
        forwarded,
        (router.common.forwarded,),
        (
            b"for=203.0.113.9;proto=https, for=10.0.0.2\n203.0.113.9, 10.0.0.2",
            b'for="[2001:db8::7]:80";by=_x\n[2001:db8::7]:80',
            b"for=unknown\nunknown",
        ),
        (b"for=", b'"', b", ", b";", b"[", b"]", b"10.0.0.3", b"fd00::1", b"::ffff:10.0.0.1", b"\\"),
    ),
)
