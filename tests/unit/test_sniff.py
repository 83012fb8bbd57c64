"""Whose a connection is, by its first bytes; and what is left for devices is still parsed as before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.transports.request import parse
from farm.worker.sniff import ENOUGH, for_app_servers

PATHS = (b"/apps", b"/metrics")
THEIRS = [
    b"POST /apps/3/events HTTP/1.1\r\n",
    b"POST / HTTP/1.1\r\n",
    b"POST ",
    b"PUT /update/token HTTP/1.1\r\n",
    b"DELETE /m/1 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"GET /apps HTTP/1.1\r\n",
    b"GET /apps?a=1 HTTP/1.1\r\n",
    b"GET /apps/3/channels HTTP/1.1\r\n",
    b"HEAD /apps HTTP/1.1\r\n",
    b"GET /metrics HTTP/1.1\r\n",
    b"HEAD http://push/metrics?x HTTP/1.1\r\n",
    b"HEAD /apps/3/channels/x?info=y HTTP/1.1\r\n",
    b"\r\nPOST / HTTP/1.1\r\n",
    b"\r\n\r\nGET /apps HTTP/1.1\r\n",
    b"GET http://push:80/apps?a=1 HTTP/1.1\r\n",
    b"HEAD HTTPS://[::1]/apps/3 HTTP/1.1\r\n",
    b"POST http://push/apps/3/events HTTP/1.1\r\n",
    b"GET http://" + b"a" * 480 + b"/apps HTTP/1.1\r\n",
]
DEVICES = [
    b"GET / HTTP/1.1\r\n",
    b"GET /app/key?protocol=7 HTTP/1.1\r\n",
    b"GET /app HTTP/1.1\r\n",
    b"GET /app?x HTTP/1.1\r\n",
    b"GET /appsx HTTP/1.1\r\n",
    b"GET /metric HTTP/1.1\r\n",
    b"GET /metricsx HTTP/1.1\r\n",
    b"GET /apps\r\n",
    b"GET /APPS HTTP/1.1\r\n",
    b"GET  /apps HTTP/1.1\r\n",
    b"HEAD / HTTP/1.1\r\n",
    b"HEAD /app/key HTTP/1.1\r\n",
    b"PATCH /apps/3/events HTTP/1.1\r\n",
    b"POSTS / HTTP/1.1\r\n",
    b"POST\r\n",
    b"post / HTTP/1.1\r\n",
    b"\rPOST / HTTP/1.1\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
    b"GET http://push/app/key HTTP/1.1\r\n",
    b"GET http://push/appsx HTTP/1.1\r\n",
    b"GET http://push?/apps HTTP/1.1\r\n",
    b"GET ftp://push/apps HTTP/1.1\r\n",
    b"GET http:/apps HTTP/1.1\r\n",
    b"GET http://" + b"a" * 600 + b"/apps HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00",
]


@pytest.mark.parametrize(("data", "theirs"), [(data, True) for data in THEIRS] + [(data, False) for data in DEVICES])
def test_it_is_decided_once_and_for_all(data: bytes, theirs: bool) -> None:
    found = [for_app_servers(data[:end], PATHS) for end in range(len(data) + 1)]
    undecided = found.index(theirs)
    assert found == [None] * undecided + [theirs] * (len(found) - undecided)
    assert undecided <= ENOUGH


@given(st.binary(max_size=40) | st.binary(min_size=ENOUGH, max_size=ENOUGH + 9) | st.just(b"\r\n" * ENOUGH))
def test_enough_is_enough(data: bytes) -> None:
    assert for_app_servers(data, PATHS) is not None or len(data) < ENOUGH


@pytest.mark.parametrize("data", THEIRS)
def test_what_does_not_decide_it_is_kept_as_the_beginning_of_a_request(data: bytes) -> None:
    for end in range(len(data)):
        if for_app_servers(data[:end], PATHS) is None:
            assert parse(data[:end], 1024, 1) is None
