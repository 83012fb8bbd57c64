"""The HTTP bytes of the bench's app servers: `bench.load.http_bytes`, and where connections come from."""

import socket

import pytest

from bench.load.frames import PeerError
from bench.load.http_bytes import Response, judged, origin_of, payload_of, response_of, split_endpoint
from bench.load.samples import (
    DATA_RIGHT,
    DATA_WRONG,
)
from bench.load.sockets import Address, source_of, sources_in


def test_responses_at_every_boundary() -> None:
    data = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}"
    for cut in range(len(data)):
        assert response_of(data[:cut]) is None
    assert response_of(data + b"HTTP/1.1 200") == Response(202, len(data), True)
    assert response_of(b"HTTP/1.1 204 No\r\n\r\n") == Response(204, 19, False)
    for bad in (b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\n\r\n", b"x" * 70_000):
        with pytest.raises(PeerError):
            response_of(bad)


def test_endpoints() -> None:
    assert split_endpoint(b"http://h:81/u/t?a=b") == ("h", 81, "h:81", b"/u/t?a=b")
    assert split_endpoint(b"http://h/u") == ("h", 80, "h", b"/u")
    origins = [b"http://h:81/u/t?a=b", b"http://H:80/u", b"http://[::1]:8081/u"]
    assert list(map(origin_of, origins)) == ["http://h:81", "http://h", "http://[::1]:8081"]
    for bad in (b"https://h/u", b"/u", b"http://h:x/u"):
        with pytest.raises(PeerError):
            split_endpoint(bad)


def test_sources_change_every_4000_connections() -> None:
    here = Address(socket.AF_INET, "127.0.0.1", 80)
    assert [source_of(index, here) for index in (0, 3_999, 4_000, 8_000)] == [
        *(None, None),
        *("127.1.0.1", "127.1.0.2"),
    ]
    assert len({source_of(index, here) for index in range(4_000, 4_000_000, 4_000)}) == 999
    assert source_of(100_000, Address(socket.AF_INET, "10.0.0.1", 80)) is None


def test_what_data_says() -> None:
    assert judged(b"123", 0) == (123, DATA_RIGHT)
    assert judged(payload_of(123, 30), 30) == (123, DATA_RIGHT)
    assert judged(payload_of(123, 29), 30) == (123, DATA_WRONG)
    assert judged(payload_of(123, 29) + b"x", 30) == (123, DATA_WRONG)
    for data, size in ((b"", 0), (b"x", 5), (b".5", 5), (b"12.", 0)):
        with pytest.raises(PeerError):
            judged(data, size)


def test_sources() -> None:
    assert sources_in("10.0.0.5") == ["10.0.0.5"]
    assert sources_in("10.0.0.16/30") == ["10.0.0.17", "10.0.0.18"]
    assert sources_in("::1") == ["::1"]
    there = Address(2, "10.0.0.1", 80)
    assert [source_of(index, there, ("a", "b", "c")) for index in (0, 1, 2, 300_000, 300_001)] == list("abcab")
