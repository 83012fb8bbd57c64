"""The app servers' port behind proxies: whose request it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from support.farm_fixture import PATIENCE_S, until
from support.router_port import Rig

WHENCE = b"GET /whence HTTP/1.1\r\nHost: push\r\n%s\r\n"


@contextmanager
def running(endpoint: dict[str, Any] | None = None, /, **listen: Any) -> Iterator[Rig]:
    rig = Rig(listen, **(endpoint or {}))
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


# ---------------------------------------------------------------------- the PROXY protocol

FIRST = b"PROXY TCP4 203.0.113.9 198.51.100.1 12345 8081\r\n"
SECOND = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f" + bytes((203, 0, 113, 9, 198, 51, 100, 1, 48, 57, 31, 145, 4, 0, 0))
UNKNOWN = b"PROXY UNKNOWN\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
CLIENT = "203.0.113.9"


def ended(rig: Rig, client: socket.socket) -> bool:
    rig.settle()
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("header", "address"), [(FIRST, CLIENT), (SECOND, CLIENT), (UNKNOWN, "127.0.0.1"), (LOCAL, "127.0.0.1")]
)
def test_a_connection_begins_with_whose_it_is(header: bytes, address: str) -> None:
    with running(proxy_from=("127.0.0.1",)) as rig:
        assert whence(rig.ask(rig.client(), header + WHENCE % b"")) == address
        client = rig.client(header[:5])
        assert not rig.poller.ready_now()  # a part of it is no work until more comes
        client.sendall(header[5:])
        rig.settle()
        assert whence(rig.ask(client, WHENCE % b"")) == address


def test_without_a_header_a_proxy_is_closed_and_nobody_else() -> None:
    with running(proxy_from=("127.0.0.2",)) as rig:
        assert whence(rig.ask(rig.client(), WHENCE % b"")) == "127.0.0.1"
        assert rig.ask(rig.client(), FIRST + WHENCE % b"").startswith(b"HTTP/1.1 400 ")
    with running(proxy_from=("127.0.0.1",), forwarded_from=("127.0.0.1",)) as rig:
        good = rig.client(FIRST)
        for bad in (WHENCE % b"", b"\x16\x03\x01", b"PROXY TCP4 1.2.3.4\r\n", FIRST.replace(b"9 ", b"x ")):
            client = rig.client(bad)
            until(partial(ended, rig, client), "it is closed")
        rig.client(FIRST[:9]).close()
        until(lambda: (rig.settle(), rig.counters.http_proxy_refused == 5)[1], "all are counted")
        assert whence(rig.ask(good, WHENCE % b"X-Forwarded-For: 1.1.1.1\r\n")) == CLIENT  # it is no proxy
        assert rig.counters.http_connections == 1


def test_what_a_proxy_in_front_of_a_proxy_says() -> None:
    with running(proxy_from=("127.0.0.1",), forwarded_from=("203.0.113.0/24",)) as rig:
        assert whence(rig.ask(rig.client(), FIRST + WHENCE % b"X-Forwarded-For: 192.0.2.5\r\n")) == "192.0.2.5"


def test_who_sends_no_header_has_an_end_and_makes_room() -> None:
    with running({"max_connections": 1, "max_refusals": 1}, proxy_from=("127.0.0.1",)) as rig:
        silent = rig.client(FIRST[:7])
        rig.clock.pass_by(16)
        rig.turn()
        rig.port.tick()
        assert ended(rig, silent)
        first = rig.client()
        assert rig.ask(rig.client(), FIRST + WHENCE % b"").startswith(b"HTTP/1.1 503 ")  # the other is young
        rig.clock.pass_by(2)
        rig.turn()
        rig.port.tick()  # it accepts again
        assert whence(rig.ask(rig.client(), FIRST + WHENCE % b"")) == CLIENT
        assert ended(rig, first)
        assert rig.counters.http_evicted == 1


def test_a_connection_of_a_worker_comes_from_where_the_worker_says() -> None:
    with running(proxy_from=("127.0.0.1",), forwarded_from=("203.0.113.9",)) as rig:
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(PATIENCE_S)
            rig.port.adopt(theirs.detach(), WHENCE % b"", CLIENT)
            rig.turn()
            assert whence(ours.recv(9999)) == CLIENT
            assert whence(rig.ask(ours, WHENCE % b"X-Forwarded-For: 192.0.2.5\r\n")) == "192.0.2.5"


def test_however_many_are_silent_no_more_than_the_limit_are_open() -> None:
    with running({"max_connections": 3, "max_refusals": 2}, proxy_from=("127.0.0.1",)) as rig:
        for _ in range(4):
            for _ in range(6):
                rig.client()
            assert rig.counters.http_connections <= 5
            rig.clock.pass_by(2)
            rig.turn()
            assert not rig.port.full  # the old ones would make room
            rig.port.tick()
            rig.settle()
        assert rig.counters.http_evicted > 3
        assert rig.counters.http_connections <= 5
