"""A dialect of the tests: what a device says comes back. For tests of the farm itself, which need none of its own.

A farm finds it by `environment`: nothing in the farm knows of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Self

import websocket

from farm.dialects import Binary, DeviceSide, Dialect, Effects, Session
from farm.transports.request import Request
from router.dialects import DialectSpec
from support.farm_fixture import PATIENCE_S, ROOT, Farm

PATH: Final = "mirror"
_FINDS_IT: Final = """
import farm.dialects
farm.dialects.__path__.append({folder!r})
"""


class _Session(Session):
    __slots__ = ()

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        return (Binary(message),) if binary else (message,)


class _Dialect(Dialect):
    def opened(self, request: Request) -> _Session:
        return _Session()


SIDE: Final = DeviceSide(spec=DialectSpec(name=PATH), make=lambda context: _Dialect(), paths=(f"/{PATH}",))


def environment(folder: Path, root: Path = ROOT) -> dict[str, str]:
    """What a farm is started with that is to find it. folder: for what makes that so. root: the farm's source tree."""
    dialects = folder / "dialects"
    dialects.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_FINDS_IT.format(folder=str(dialects)))
    (dialects / f"{PATH}.py").write_text("from support.mirror import SIDE\n")
    return {"PYTHONPATH": os.pathsep.join(map(str, (folder, root, ROOT / "tests")))}


class Mirror:
    """A connection on websocket-client. Raises websocket.WebSocketBadStatusException where it is refused."""

    path = PATH

    def __init__(self, farm: Farm, **options: Any) -> None:
        options = {"timeout": PATIENCE_S} | options
        self.socket = websocket.create_connection(f"{farm.device_url}{self.path}", **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()  # close() leaves the socket open if the server has closed first

    def check(self) -> None:
        """What it sends comes back."""
        text = os.urandom(8).hex()
        self.socket.send(text)
        assert self.socket.recv() == text
