"""memcached's protocol: replies in every cut, and replies that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.common import cuts, growth

from router.store.memcached_protocol import (
    DIFFERS,
    DONE,
    NO_ROOM,
    Entries,
    Entry,
    Outcomes,
    ProtocolError,
    Statistics,
    delete,
    get,
    put,
)

ENTRIES = b"VALUE k 0 6 18446744073709551615\r\n\r\nEND\r\r\nVALUE empty 3 0 7\r\n\r\nEND\r\n"
OUTCOMES = (
    b"STORED\r\nNOT_STORED\r\nEXISTS\r\nNOT_FOUND\r\nHD\r\nNF\r\nEX\r\n"
    b"SERVER_ERROR out of memory storing object\r\nSERVER_ERROR object too large for cache\r\n"
)
STATISTICS = b"STAT version 1.6.18\r\nSTAT libevent 2.1.12 stable\r\nSTAT none \r\nEND\r\n"


@pytest.mark.parametrize(
    ("reply", "data", "found"),
    [
        (Entries, ENTRIES, {b"k": Entry(b"\r\nEND\r", 2**64 - 1), b"empty": Entry(b"", 7)}),
        (Entries, b"END\r\n", {}),
        (lambda: Outcomes(9), OUTCOMES, [DONE, DIFFERS, DIFFERS, DIFFERS, DONE, DONE, DIFFERS, NO_ROOM, NO_ROOM]),
        (Statistics, STATISTICS, {"version": "1.6.18", "libevent": "2.1.12 stable", "none": ""}),
    ],
)
def test_a_reply_is_read_in_every_cut(reply: Callable[[], Any], data: bytes, found: object) -> None:
    whole = reply()
    assert whole.feed(data)
    assert whole.found == found
    for first, second in cuts(data):
        taken = reply()
        assert not first or not taken.feed(first)
        assert taken.feed(second)
        assert taken.found == found
    one_by_one = reply()
    assert [one_by_one.feed(data[at : at + 1]) for at in range(len(data))].index(True) == len(data) - 1
    assert one_by_one.found == found


@pytest.mark.parametrize("reply", [Entries, lambda: Outcomes(1), Statistics])
@pytest.mark.parametrize(
    "data",
    [
        b"ERROR\r\n",
        b"CLIENT_ERROR bad data chunk\r\n",
        b"SERVER_ERROR proxy is away\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"VALUE k 0 1\r\n",
        b"VALUE k 0 x 1\r\n",
        b"VALUE k 0 -1 1\r\n",
        b"VALUE k 0 1 " + b"9" * 5000 + b"\r\n",
        b"STAT\nEND\r\n",
        b"x" * 5000,
        b"END\r\nEND\r\n",
        b"STORED\r\nSTORED\r\n",
        b"STORED\r\nS",
        b"\r\n",
    ],
)
def test_what_is_no_reply_is_an_error(reply: Callable[[], Any], data: bytes) -> None:
    with pytest.raises(ProtocolError):
        reply().feed(data)


def test_long_replies_are_read_in_linear_time() -> None:
    def read(size: int) -> None:
        reply = Entries()
        data = b"".join(b"VALUE key%d 0 100 1\r\n%b\r\n" % (n, b"x" * 100) for n in range(size)) + b"END\r\n"
        for at in range(0, len(data), 4096):
            reply.feed(data[at : at + 4096])
        assert len(reply.found) == size

    assert growth(read, 500) < 10


def test_requests() -> None:
    assert get([b"a", b"b"]) == b"gets a b\r\n"
    assert put(b"k", b"\r\n", 60, None) == b"add k 0 60 2\r\n\r\n\r\n"
    assert put(b"k", b"v", 0, Entry(b"", 2**64 - 1)) == b"cas k 0 0 1 18446744073709551615\r\nv\r\n"
    assert delete(b"k", Entry(b"", 5)) == b"md k C5\r\n"


def test_numbers_of_statistics() -> None:
    reply = Statistics()
    assert reply.feed(b"STAT bytes 12\r\nSTAT time -1\r\nEND\r\n")
    assert [reply.number(name) for name in ("bytes", "time", "none")] == [12, 0, 0]
