"""The admin port's connections: none of them, however slow or many, is in the way of the others or of the end."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from farm.settings import AdminOptions
from farm.supervisor.admin import application
from farm.supervisor.admin_port import AdminPort
from router.common import logs
from router.dialects import AdminContext, DialectSpec

GET = b"GET /live HTTP/1.1\r\nhost: h\r\n\r\n"
SHORT = AdminOptions(max_connections=3, max_header_bytes=1024, request_timeout=0.3, idle_timeout=0.3)
LONG = AdminOptions(max_connections=3, max_header_bytes=1024)
PATIENCE_S = 20
PUT = b"PUT /taken HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n"
H2C = b"upgrade: h2c\r\nconnection: upgrade\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nhost"
Connect = Callable[[], Awaitable[trio.SocketStream]]


def pages(context: AdminContext) -> list[Route]:
    """Those of a dialect: one takes a body, one fails."""

    async def taken(request: Request) -> Response:
        return Response(await request.body())

    async def fails(request: Request) -> Response:
        return JSONResponse(await context.set_broadcast("", None))

    return [Route("/taken", taken, methods=["PUT"]), Route("/fails", fails)]


DIALECT: Final = DialectSpec(name="any", admin_routes=pages)


@asynccontextmanager
async def serving(options: AdminOptions, wait: trio.Event | None = None) -> AsyncIterator[Connect]:
    """The real pages; those that ask the farm wait for `wait`. Yields what opens a connection."""

    async def status() -> dict[str, Any]:
        if wait is not None:
            await wait.wait()
        return {"status": "ok", "down": [], "routers": [], "workers": [], "filler": "x" * 30_000_000}

    async def unready() -> tuple[str, ...]:
        return ()

    async def set_broadcast(space: str, key: str, value: str | None) -> dict[str, Any] | None:
        raise RuntimeError(f"a defect of ours, for {space}")

    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    stop = trio.Event()
    port = AdminPort(application(status, unready, set_broadcast, [DIALECT]), options)  # type: ignore[arg-type]
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run, listener.detach(), stop.wait)
            yield partial(trio.open_tcp_stream, "127.0.0.1", number)
            stop.set()


async def rest(stream: trio.SocketStream) -> bytes:
    found = b""
    try:
        while data := await stream.receive_some(65_536):
            found += data
    except trio.BrokenResourceError:
        pass
    return found


async def answer(stream: trio.SocketStream, request: bytes = GET) -> bytes:
    """The status line of one answer, which is taken whole."""
    await stream.send_all(request)
    found = b""
    while part := await stream.receive_some(65_536):
        found += part
        head, _, body = found.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length is not None and len(body) >= int(length[1]):
            break
    return found.split(b"\r\n")[0]


def test_an_answer_that_did_not_wait_for_the_body_says_that_the_connection_ends() -> None:
    """Else a client asks again on it while it is being closed."""

    async def run() -> None:
        async with serving(LONG) as connect:
            refused = PUT.replace(b"/taken", b"/live")
            early = await connect()
            await early.send_all(refused)
            found = await rest(early)
            assert found.startswith(b"HTTP/1.1 405 ") and b"\r\nconnection: close\r\n" in found
            whole = await connect()
            for _ in range(2):
                assert b" 200" in await answer(whole)

    trio.run(run)


@pytest.mark.parametrize("said", [b"", b"GET /live HTTP/1.1\r\n", PUT])
def test_one_that_says_nothing_or_half_is_closed(said: bytes) -> None:
    async def run() -> None:
        async with serving(SHORT) as connect:
            slow = await connect()
            await slow.send_all(said)
            assert await rest(slow) == b""
            assert b" 200" in await answer(await connect())

    trio.run(run)


def test_one_that_drips_is_closed() -> None:
    async def run() -> None:
        async with serving(SHORT) as connect:
            slow = await connect()
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                while True:
                    await slow.send_all(b"a")
                    await trio.sleep(0.02)

    trio.run(run)


def test_one_that_does_not_read_is_cut_off_and_not_waited_for_at_the_end() -> None:
    async def run() -> None:
        async with serving(SHORT) as connect:
            deaf = await connect()
            await deaf.send_all(GET.replace(b"live", b"status"))
            await trio.sleep(1)
            with pytest.raises(trio.BrokenResourceError):
                while True:  # the answer was cut off: what follows is a reset
                    await deaf.send_all(GET)
                    await trio.sleep(0.02)
        async with serving(LONG) as connect:
            deaf = await connect()
            await deaf.send_all(GET.replace(b"live", b"status"))
            assert await deaf.receive_some(1)

    trio.run(run)


def test_beyond_the_limit_the_longest_idle_one_makes_room() -> None:
    async def run() -> None:
        async with serving(LONG) as connect:
            idle = [await connect() for _ in range(3)]
            assert b" 200" in await answer(idle[0])  # so that the second one is idle for longest
            for _ in range(2):
                assert b" 200" in await answer(await connect())
            assert await rest(idle[1]) == await rest(idle[2]) == b""
            assert b" 200" in await answer(idle[0])

    trio.run(run)


@pytest.mark.parametrize("slow", [PUT, GET.replace(b"live", b"status")])
def test_those_that_send_or_read_slowly_keep_nobody_out(slow: bytes) -> None:
    """30 MB is more than the kernel takes of an answer that is not read."""

    async def run() -> None:
        async with serving(LONG) as connect:
            waiting = [await connect() for _ in range(3)]
            for one in waiting:
                await one.send_all(slow)
                await trio.sleep(0.2)
            assert b" 200" in await answer(await connect())
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await waiting[0].send_all(PUT)
                    await trio.sleep(0.02)
            await waiting[1].send_all(b"123456789")
            assert (await waiting[1].receive_some(9)).startswith(b"HTTP/1.1 ")

    trio.run(run)


def test_where_all_have_a_request_the_next_one_hears_503() -> None:
    async def run() -> None:
        wait = trio.Event()
        async with serving(LONG, wait) as connect:
            busy = [await connect() for _ in range(3)]
            for one in busy:
                await one.send_all(GET.replace(b"live", b"health"))
            await trio.sleep(0.2)
            assert b" 503" in await answer(await connect())
            wait.set()
            for one in busy:
                assert b" 200" in bytes(await one.receive_some(65_536)).split(b"\r\n")[0]

    trio.run(run)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (
            GET.replace(b"host", H2C),
            b" 200",
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" 4"),
        (b"GET /live HTTP/1.1\r\nhost: h\r\na: " + b"x" * 2000, b" 431"),
        (b"GET /live?" + b"x" * 9000 + b" HTTP/1.1\r\nhost: h\r\n\r\n", b" 431"),
        (PUT.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), b" 400"),
        (b"\x16\x03\x01\x00\xee\r\n\r\n", b" 400"),
        (b"BREW /live HTTP/1.1\r\nhost: h\r\n\r\n", b" 405"),
        (b"GET /\xff%00 HTTP/1.1\r\nhost: h\r\n\r\n", b" 4"),
        (b"GET /fails HTTP/1.1\r\nhost: h\r\n\r\n", b" 500"),
        (b"PUT /taken HTTP/1.1\r\nhost: h\r\ncontent-length: " + b"0" * 900 + b"9\r\n\r\n", b""),
        (b"GET /live HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", b" 4"),
    ],
)
def test_what_one_sends_is_the_end_of_that_one_at_most(request_: bytes, status: bytes) -> None:
    async def run() -> None:
        async with serving(SHORT) as connect:
            assert status in await answer(await connect(), request_)
            assert b" 200" in await answer(await connect())

    trio.run(run)


def test_a_defect_is_a_line_of_our_log_and_nothing_besides(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        async with serving(LONG) as connect:
            for _ in range(3):
                assert b" 500" in await answer(await connect(), b"GET /fails HTTP/1.1\r\nhost: h\r\n\r\n")

    logs._shared_limit._keys.clear()  # one line in ten seconds, and perhaps it was of a test before
    trio.run(run)
    said = {(record.name, record.message) for record in caplog.records if record.levelno >= logging.WARNING}
    assert said == {("farm", "admin.connection_failed")}
    assert capfd.readouterr() == ("", "")


def test_those_who_leave_before_their_answer_are_no_error(caplog: pytest.LogCaptureFixture) -> None:
    unread = b"POST /live HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n"

    async def run() -> None:
        async with serving(AdminOptions(max_connections=100)) as connect:
            for _ in range(50):
                async with await connect() as one:
                    await one.send_all(unread)
                    await one.send_eof()
            assert b" 200" in await answer(await connect())

    trio.run(run)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
