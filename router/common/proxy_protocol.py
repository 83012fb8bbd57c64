"""The header of the PROXY protocol, versions 1 and 2, by which a proxy says whose connection it passes on. Pure.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, sections 2.1 and 2.2. Read strictly: what is no header in
every byte is an error, and the connection has no other use. Extensions of version 2 (TLVs) are skipped.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from router.common.client_address import address_text

MAX_BYTES: Final = 4096
"""Of a whole header; version 2 could be of 65,551. Addresses and all the extensions in use take less than 1 KiB."""
MAX_V1_BYTES: Final = 107

_V1: Final = b"PROXY "
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r]*+)?|TCP([46]) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45})"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))"
)
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_BYTES: Final = 16
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_INET, _INET6, _UNIX = 1, 2, 3
_ADDRESSES: Final = {_INET: 12, _INET6: 36, _UNIX: 216}
"""Bytes of both addresses (and ports) of a family."""
_LAST_TRANSPORT: Final = 2


class ProxyError(ValueError):
    """This is no header of the PROXY protocol. Its text is for the log."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header."""

    size: int
    """In bytes: what comes behind belongs to the client."""
    address: str | None
    """The client's, as `address_text` gives it; None: the connection is the proxy's own, or of no IP address, and the
    peer's address counts."""


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header with which these bytes begin; None: all of them belong to one, and there is more of it.

    Raises: ProxyError, as soon as no header can begin so.
    """
    if data.startswith(_V1[:1]):
        return _first(data)
    return _second(data)


def _first(data: bytes) -> ProxyHeader | None:
    if not _V1.startswith(data[: len(_V1)]):
        raise ProxyError("no PROXY header")
    end = data.find(b"\r", 0, MAX_V1_BYTES)
    if end < 0 or end + 1 == len(data):
        if len(data) >= MAX_V1_BYTES:
            raise ProxyError(f"a line of version 1 is longer than {MAX_V1_BYTES} bytes")
        return None
    found = _LINE.fullmatch(data, 0, end)
    if found is None or data[end + 1] != ord("\n") or end + 2 > MAX_V1_BYTES:
        raise ProxyError("a malformed line of version 1")
    family, source, destination, *ports = found.groups()
    if family is None:
        return ProxyHeader(end + 2, None)
    kind = ipaddress.IPv4Address if family == b"4" else ipaddress.IPv6Address
    try:
        kind(destination.decode())
        address = address_text(kind(source.decode()))
    except ValueError:
        raise ProxyError("a malformed address in a line of version 1") from None
    if any(int(port) > 65_535 for port in ports):
        raise ProxyError("a malformed port in a line of version 1")
    return ProxyHeader(end + 2, address)


def _second(data: bytes) -> ProxyHeader | None:
    if not _V2.startswith(data[: len(_V2)]):
        raise ProxyError("no PROXY header")
    if len(data) > len(_V2) and data[12] not in (_LOCAL, _PROXY):
        raise ProxyError("neither version 2 nor a command that it has")
    if len(data) < _V2_BYTES:
        return None
    family, transport = divmod(data[13], 16)
    size = _V2_BYTES + int.from_bytes(data[14:16], "big")
    if size > MAX_BYTES:
        raise ProxyError(f"a header of version 2 is longer than {MAX_BYTES} bytes")
    if data[12] == _PROXY:
        if family > _UNIX or transport > _LAST_TRANSPORT:
            raise ProxyError("a family of addresses that version 2 does not have")
        if size < _V2_BYTES + _ADDRESSES.get(family, 0):
            raise ProxyError("a header of version 2 is too short for its addresses")
    if len(data) < size:
        return None
    if data[12] == _PROXY and transport:
        if family == _INET:
            return ProxyHeader(size, str(ipaddress.IPv4Address(data[16:20])))
        if family == _INET6:
            return ProxyHeader(size, address_text(ipaddress.IPv6Address(data[16:32])))
    return ProxyHeader(size, None)
