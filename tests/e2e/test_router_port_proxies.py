"""The app servers' port behind proxies: whose request it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.router_port import Rig

WHENCE = b"GET /whence HTTP/1.1\r\nHost: push\r\n%s\r\n"


@contextmanager
def running(**listen: Any) -> Iterator[Rig]:
    rig = Rig(listen)
    try:
        yield rig
    finally:
        rig.close()


def whence(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    return body.decode()


def test_each_request_of_a_trusted_proxy_comes_from_where_its_headers_say() -> None:
    with running(forwarded_from=("127.0.0.0/8", "10.0.0.0/8")) as rig:
        proxy = rig.client()
        for header, address in (
            (b"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
            (b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.8, 10.0.0.3\r\n", "203.0.113.8"),
            (b'Forwarded: for="[2001:db8::7]:80";proto=https\r\n', "2001:db8::7"),
            (b"", "127.0.0.1"),
        ):
            assert whence(rig.ask(proxy, WHENCE % header)) == address
        odd = b'Forwarded: for="\r\n'
        assert rig.ask(proxy, WHENCE % odd).startswith(b"HTTP/1.1 400 ")
        both = rig.client()
        assert b"disagree" in rig.ask(both, WHENCE % b"Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 203.0.113.9\r\n")


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
def test_headers_of_others_say_nothing(trusted: tuple[str, ...]) -> None:
    with running(forwarded_from=trusted) as rig:
        client = rig.client()
        for header in (b"X-Forwarded-For: 10.0.0.1\r\n", b'Forwarded: for="\r\n'):
            assert whence(rig.ask(client, WHENCE % header)) == "127.0.0.1"
