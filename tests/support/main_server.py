"""A main server in a process of its own, on Starlette and hypercorn. A client's cookie decides what it does.

`does=NAME` chooses one of `DOES`; with a dot and whatever follows it is another cookie. Without it the answer is 403,
but for a client that asks for `for-all` by an argument.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from bench.machine.ports import free_ports
from support.farm_fixture import PATIENCE_S, ROOT, environ, until

REFUSAL: Final = "<p>log in first"
_seen: list[dict[str, Any]] = []
_times: Counter[str] = Counter()


async def _yes(request: Request) -> Response:
    return Response()


async def _channels(request: Request) -> Response:
    return JSONResponse({"channels": ["a"], "user": "ann", "data": {"plan": 1}})


async def _redirects_inside(request: Request) -> Response:
    return Response(headers={"X-Accel-Redirect": "/ws?_=&tag=&time=&eventid=&channels=a"})


async def _reads(request: Request) -> Response:
    """Allows everything but to publish."""
    return HTMLResponse("only reads", 403) if request.headers["x-action"] == "publish" else Response()


async def _for_a_second(request: Request) -> Response:
    return JSONResponse({"expires": 1})


async def _twice(request: Request) -> Response:
    """Allows it for a second, two times."""
    cookie = request.headers["cookie"]
    _times[cookie] += 1
    return JSONResponse({"expires": 1}) if _times[cookie] <= 2 else HTMLResponse("no more", 403)


async def _late(request: Request) -> Response:
    await trio.sleep(1)
    return Response()


async def _never(request: Request) -> Response:
    await trio.sleep(3600)
    return Response()


async def _fails(request: Request) -> Response:
    return Response("oops", 500)


async def _redirects(request: Request) -> Response:
    return RedirectResponse("/open")


async def _huge(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100_000):
            yield b" " * 10_000

    return StreamingResponse(parts(), media_type="application/json")


async def _nonsense(request: Request) -> Response:
    return Response('{"channels": 5}', media_type="text/plain")


async def _sets_a_cookie(request: Request) -> Response:
    return Response(headers={"Set-Cookie": "does=yes; Path=/"})


DOES: Final[dict[str, Callable[[Request], Awaitable[Response]]]] = {
    "yes": _yes,
    "channels": _channels,
    "redirects-inside": _redirects_inside,
    "reads": _reads,
    "for-a-second": _for_a_second,
    "twice": _twice,
    "late": _late,
    "never": _never,
    "fails": _fails,
    "redirects": _redirects,
    "huge": _huge,
    "nonsense": _nonsense,
    "sets-a-cookie": _sets_a_cookie,
}


async def _auth(request: Request) -> Response:
    assert request.client is not None
    told = {"method": request.method, "body": (await request.body()).decode(), "port": str(request.client.port)}
    _seen.append({**request.headers, **told})
    if "=for-all" in request.headers.get("x-original-uri", ""):
        return Response()
    does = request.cookies.get("does", "").partition(".")[0]
    return await DOES[does](request) if does in DOES else HTMLResponse(REFUSAL, 403)


async def _tell(request: Request) -> Response:
    return JSONResponse(_seen)


async def _open(request: Request) -> Response:
    return Response()


app = Starlette(
    routes=[
        Route("/auth", _auth, methods=["GET", "POST"]),
        Route("/open", _open, methods=["GET", "POST"]),
        Route("/seen", _tell),
    ]
)


class MainServer:
    """One that runs."""

    def __init__(self, module: str = "support.main_server", folder: str = "tests") -> None:
        self._module = module
        self._folder = ROOT / folder
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        bound = f"127.0.0.1:{self.port}"
        hypercorn = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--workers", "0"]  # in one process
        environment = environ() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        self._process = subprocess.Popen(
            [*hypercorn, "--bind", bound, f"{self._module}:app"],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers, "the main server answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the main server has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE_S).close()
        except ConnectionRefusedError:
            return False
        return True

    def stop(self) -> None:
        """End it, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def url(self, path: str = "/auth") -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}{path}"

    def seen(self, **like: str) -> list[dict[str, Any]]:
        """What it was asked, of that what has these headers; `method`, `body` and `port` are among them."""
        with urllib.request.urlopen(self.url("/seen"), timeout=PATIENCE_S) as answer:
            found = json.load(answer)
        return [one for one in found if all(one.get(name.replace("_", "-")) == text for name, text in like.items())]


@contextmanager
def running_main_server(module: str = "support.main_server", folder: str = "tests") -> Iterator[MainServer]:
    """A main server for the time of the block."""
    server = MainServer(module, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
