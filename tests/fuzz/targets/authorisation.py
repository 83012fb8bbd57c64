"""What the application's main server answers. The first line is the status, then come headers, then the body."""

from __future__ import annotations

from typing import Final

import router.auth.http
from farm.transports.request import header_lines
from fuzz.engine import Target
from router.auth.http import Unusable, verdict
from router.common import messages as m
from router.common.wire import NEWEST, reply_payload

_LIMIT: Final = 2**20


def answer(data: bytes) -> None:
    """It is a verdict that a worker understands, or it allows nothing."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    status = int(first) if first.isdigit() and len(first) < 4 else 200
    headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    try:
        found = verdict(status, headers, body)
    except Unusable as error:
        assert len(str(error)) < 1000
        assert status < 400 or status >= 500, "a refusal is one, whatever comes with it"
        return
    header_lines((name.decode(), value.decode("latin-1")) for name, value in found.headers)
    header_lines([("Content-Type", found.content_type)])
    assert found.allowed == (200 <= status < 300)
    batch = NEWEST.of_router(NEWEST.encode(m.RouterBatch(1, [m.Reply(1, m.OK, found)], [])), _LIMIT)
    assert isinstance(batch, m.RouterBatch)
    (reply,) = batch.messages
    assert isinstance(reply, m.Reply)
    assert reply_payload(m.Authorise, reply.payload) == found


_JSON: Final = b"200\nContent-Type: application/json\n\n"
TARGETS: Final = (
    Target(
        "main-server",
        answer,
        (router.auth.http,),
        (
            _JSON + b'{"channels":["a","b"],"user":"ann","expires":60,"data":{"a":[1,null]}}',
            _JSON + b'{"channels":null,"user":7,"expires":1.5,"data":null}',
            b"200\nX-Accel-Redirect: /ws?channels=a/b\n\n",
            b"401\nWWW-Authenticate: Basic\nRetry-After: 5\ncontent-type: text/html\n\n<p>no",
            b"302\nLocation: /login\n\n",
        ),
        (b'"channels":', b'"user":', b'"expires":', b'"data":', b"[", b"]", b"{", b"}", b"null", b"1e9", b"\n\n"),
    ),
)
