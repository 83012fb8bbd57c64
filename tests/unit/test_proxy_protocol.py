"""The PROXY protocol's header: what HAProxy's document defines, and nothing else."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.common.proxy_protocol import MAX_BYTES, MAX_V1_BYTES, ProxyError, ProxyHeader, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = b"\x20", b"\x21"
TCP4, UDP4, TCP6, UDP6, STREAM, UNSPEC = b"\x11", b"\x12", b"\x21", b"\x22", b"\x31", b"\0"
V4 = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + b"\x30\x39\0\x50"
V6 = ipaddress.IPv6Address("2001:db8::7").packed + ipaddress.IPv6Address("2001:db8::1").packed + b"\x30\x39\0\x50"
TLVS = b"\x04\0\x05abcde" + b"\x20\0\x0d\x01\0\0\0\0\x21\0\x05TLS13"


def second(command: bytes, family: bytes, body: bytes) -> bytes:
    return SIGNATURE + command + family + len(body).to_bytes(2, "big") + body


WHOLE = {
    b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 80\r\n": "192.0.2.7",
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": "255.255.255.255",
    b"PROXY TCP6 2001:DB8::7 2001:db8::1 12345 80\r\n": "2001:db8::7",
    b"PROXY TCP6 " + b" ".join([b"ffff:f" + b":ffff" * 6] * 2) + b" 65535 65535\r\n": "ffff:f" + ":ffff" * 6,
    b"PROXY TCP6 ::ffff:192.0.2.7 ::1 0 0\r\n": "192.0.2.7",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN " + b" ".join([b"ffff" + b":ffff" * 7] * 2) + b" 65535 65535\r\n": None,
    second(PROXY, TCP4, V4): "192.0.2.7",
    second(PROXY, UDP4, V4): "192.0.2.7",
    second(PROXY, TCP4, V4 + TLVS): "192.0.2.7",
    second(PROXY, TCP6, V6): "2001:db8::7",
    second(PROXY, UDP6, V6 + TLVS): "2001:db8::7",
    second(PROXY, TCP6, ipaddress.IPv6Address("::ffff:192.0.2.7").packed + V6[16:]): "192.0.2.7",
    second(PROXY, STREAM, b"/run/one".ljust(108, b"\0") * 2): None,
    second(PROXY, UNSPEC, b""): None,
    second(PROXY, b"\x10", V4): None,
    second(LOCAL, UNSPEC, b""): None,
    second(LOCAL, TCP4, V4): None,
    second(LOCAL, b"\xff", b"x" * 9): None,
    second(PROXY, TCP4, V4.ljust(MAX_BYTES - 16, b"\0")): "192.0.2.7",
}

REFUSED = (
    b"G",
    b"GET / HTTP/1.1\r\n",
    b"PUT /update/x HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"\0",
    b"PROXY  TCP4 192.0.2.7 198.51.100.1 12345 80\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 80\n" + b"x" * 100,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 80\r\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 12345\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 80 \r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 65536\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 012 80\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 12345 80\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100 12345 80\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 12345 80\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 12345 80\r\n",
    b"PROXY TCP6 2001:db8::7%eth0 2001:db8::1 12345 80\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 12345 80\r\n",
    b"PROXY UNKNOWNx\r\n",
    b"proxy UNKNOWN\r\n",
    b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_V1_BYTES,
    second(b"\x22", TCP4, V4),
    second(b"\x11", TCP4, V4),
    second(PROXY, b"\x41", V4),
    second(PROXY, b"\x13", V4),
    second(PROXY, TCP4, V4[:-1]),
    second(PROXY, TCP6, V4),
    second(PROXY, STREAM, V6),
    SIGNATURE + PROXY + TCP4 + b"\xff\xff",
    SIGNATURE[:-1] + b"\r",
)


@pytest.mark.parametrize("data", WHOLE)
@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01", b"\r\n", b"PROXY UNKNOWN\r\n"])
def test_what_is_behind_a_whole_header_is_the_clients(data: bytes, behind: bytes) -> None:
    assert parse_proxy_header(data + behind) == ProxyHeader(len(data), WHOLE[data])


@pytest.mark.parametrize("data", WHOLE)
def test_every_beginning_of_one_wants_more(data: bytes) -> None:
    for end in range(len(data)):
        assert parse_proxy_header(data[:end]) is None


@pytest.mark.parametrize("data", REFUSED)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_proxy_header(data)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0", b"P0", b"\r\n\r\nGET"])
def test_another_protocol_is_refused_before_the_length_of_a_header_has_come(data: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_proxy_header(data)


def test_a_header_has_an_end_whatever_is_sent() -> None:
    with pytest.raises(ProxyError):
        parse_proxy_header(b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 14))
    with pytest.raises(ProxyError):
        parse_proxy_header(SIGNATURE + LOCAL + UNSPEC + (MAX_BYTES - 15).to_bytes(2, "big"))


@given(st.sampled_from([*WHOLE, *REFUSED]), st.integers(0, 200), st.binary(max_size=8))
def test_how_it_is_cut_does_not_matter(data: bytes, at: int, odd: bytes) -> None:
    data = data[:at] + odd + data[at + len(odd) :]
    whole = outcome(data)
    for end in range(min(len(data), 300)):
        assert outcome(data[:end]) in (None, whole)
    for more in (b"\0", b"\r\n", b"x"):
        assert whole is None or outcome(data + more) == whole


def outcome(data: bytes) -> ProxyHeader | type[ProxyError] | None:
    """What an incremental reader has of it; the texts of errors may become more particular."""
    try:
        return parse_proxy_header(data)
    except ProxyError:
        return ProxyError
