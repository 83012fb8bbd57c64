"""The demo's shell: serves the page on loopback, posts its pushes to the farm, and looks whether the farm is there."""

from __future__ import annotations

import http.client
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio
import trio_websocket
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from farm.webpush_demo import page
from farm.webpush_demo.sender import Base, Order, Push, Refused, Sender, hint
from router.common import option_texts as texts

HOST: Final = "127.0.0.1"
MAX_ORDER_BYTES: Final = 32_768
MAX_ANSWER_BYTES: Final = 65_536
POST_TIMEOUT_S: Final = 10.0
LOOK_TIMEOUT_S: Final = 3.0

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": page.SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HELLO: Final = '{"messageType":"hello","use_webpush":true,"broadcasts":{}}'


class Unreachable(Exception):
    """The farm does not answer. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Site:
    """What one demo is made of."""

    url: str
    device_url: str
    sender: Sender


@dataclass(frozen=True, slots=True)
class Answer:
    """What the farm said to a push."""

    status: int
    reason: str
    body: bytes

    def says(self) -> str:
        """The message of the farm's error body, else the status's own words."""
        try:
            return str(msgspec.json.decode(self.body)["message"])
        except (msgspec.DecodeError, KeyError, TypeError, IndexError):
            return self.reason


def checked_device_url(url: str) -> str:
    """Raises: ValueError with one line about what is wrong."""
    scheme, colon, rest = url.partition(":")
    try:
        if scheme.lower() not in ("ws", "wss"):
            raise ValueError(url)
        texts.base_url(f"http{colon}{rest}")
    except ValueError:
        raise ValueError("expected ws://HOST:PORT/ or wss://HOST/") from None
    return url if urlsplit(url).path else f"{url}/"


def post(base: Base, push: Push) -> Answer:
    """Post a push to the farm. Blocks. Redirects are not followed.

    Raises: Unreachable.
    """
    kind = http.client.HTTPSConnection if base.scheme == "https" else http.client.HTTPConnection
    connection = kind(base.host, base.port, timeout=POST_TIMEOUT_S)
    try:
        connection.request("POST", push.path, push.body, push.headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.reason, answer.read(MAX_ANSWER_BYTES))
    except (OSError, http.client.HTTPException) as exc:
        raise Unreachable(_no_answer("router", base.url, exc)) from None
    finally:
        connection.close()


async def device_problem(url: str) -> str:
    """Say hello as Firefox does. Returns: what is wrong and what to do; empty if a farm answers."""
    try:
        with trio.fail_after(LOOK_TIMEOUT_S):
            async with trio_websocket.open_websocket_url(url, disconnect_timeout=LOOK_TIMEOUT_S) as device:
                await device.send_message(_HELLO)
                reply: Any = msgspec.json.decode(await device.get_message())
    except (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed, trio.TooSlowError) as exc:
        return _no_answer("device", url, exc)
    except msgspec.DecodeError:
        reply = None
    if isinstance(reply, dict) and reply.get("use_webpush") is True:
        return ""
    return f"What answers at {url} does not speak WebPush. If it is the farm: is dialects.webpush set to false?"


async def router_problem(base: Base) -> str:
    """Returns: what is wrong and what to do; empty if something listens where pushes go."""
    try:
        with trio.fail_after(LOOK_TIMEOUT_S):
            await (await trio.open_tcp_stream(base.host, base.port)).aclose()
    except (OSError, trio.TooSlowError) as exc:
        return _no_answer("router", base.url, exc)
    return ""


def _no_answer(port: str, url: str, exc: BaseException) -> str:
    return (
        f"The farm's {port} port does not answer at {url} ({_reason(exc)}). Start a farm (farm start), or give the "
        f"demo its address: --{port}-url."
    )


def _reason(exc: BaseException) -> str:
    """What the system said, if it did: libraries wrap it, and trio puts all attempts to connect into a group."""
    if isinstance(exc, trio.TooSlowError | TimeoutError):
        return "timed out"
    found: BaseException | None = exc
    while found is not None and not (isinstance(found, OSError) and found.strerror):
        found = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else found.__cause__
    if isinstance(found, OSError):
        return str(found.strerror).lower()
    return str(exc) or type(exc).__name__


def application(site: Site) -> Starlette:
    """The demo's pages."""
    sender = site.sender
    document = page.build(site.url, sender.base.url, site.device_url, sender.public_key)

    async def show(request: Request) -> Response:
        return HTMLResponse(document, headers=_HEADERS)

    async def look(request: Request) -> Response:
        problems = [await device_problem(site.device_url), await router_problem(sender.base)]
        return JSONResponse({"problems": [text for text in problems if text]}, headers=_HEADERS)

    async def send(request: Request) -> Response:
        # A page of another site may send a form here, but not this type without being allowed first.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error(415, "Send JSON (Content-Type: application/json).")
        body = await _body(request)
        if body is None:
            return _error(413, "The text is too long.")
        try:
            push = sender.push(msgspec.json.decode(body, type=Order))
        except msgspec.DecodeError as exc:
            return _error(400, f"That is no order for a push: {exc}")
        except Refused as exc:
            return _error(400, str(exc))
        began = trio.current_time()
        try:
            answer = await trio.to_thread.run_sync(post, sender.base, push, abandon_on_cancel=True)
        except Unreachable as exc:
            return _error(502, str(exc))
        took = (trio.current_time() - began) * 1000
        found = {"status": answer.status, "says": answer.says(), "took": took, "hint": hint(answer.status)}
        return JSONResponse(found, headers=_HEADERS)

    files = [Route(f"/{name}", _file(name, media_type)) for name, media_type in page.FILES.items()]
    return Starlette(
        routes=[Route("/", show), *files, Route("/farm", look), Route("/send", send, methods=["POST"])],
        # A page of another site may have its own name point here, but not with our name in its requests.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", HOST])],
    )


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def give(request: Request) -> Response:
        return Response(page.file(name), media_type=media_type, headers=_HEADERS)

    return give


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status, headers=_HEADERS)


async def _body(request: Request) -> bytes | None:
    """The body; None if it is too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_ORDER_BYTES:
            return None
    return body


def run(port: int, base: Base, device_url: str, ready: Callable[[Site], None]) -> None:
    """Serve the demo on loopback until SIGINT or SIGTERM.

    Args:
        port: 0 takes a free one.
        base: the farm's endpoints.
        device_url: what Firefox is to connect to.
        ready: called when it serves.

    Raises: OSError if the port cannot be had.
    """
    listener = socket.create_server((HOST, port))
    site = Site(f"http://localhost:{listener.getsockname()[1]}/", device_url, Sender(base, time.time))
    trio.run(_serve, listener, site, ready)


async def _serve(listener: socket.socket, site: Site, ready: Callable[[Site], None]) -> None:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    logger = logging.getLogger("hypercorn.demo")
    logger.setLevel(logging.WARNING)
    config.errorlog = logger
    config.graceful_timeout = 0.2
    config.shutdown_timeout = 0.5
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve, shutdown_trigger=stop.wait), application(site), config)
            ready(site)
            async for _ in signals:
                break
            stop.set()
