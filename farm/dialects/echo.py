"""The smallest dialect: text back as text, binary as binary. For WebSocket conformance suites; off by default."""

from __future__ import annotations

from typing import Any

from farm.dialects import Binary, Context, Effects
from farm.worker.upgrade import Request
from router.common.options import Section
from router.store.base import Item

NAME = "echo"
ON = False
SECTIONS: tuple[type[Section], ...] = ()
PATHS = ("/echo",)
RANK = 0


class EchoSession:
    """Holds nothing at all; one serves every connection."""

    __slots__ = ()
    key: bytes | None = None

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        return (Binary(message),) if binary else (message,)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        return ()

    def delivered(self, slot: str, version: int, body: str | None) -> bytes:
        raise AssertionError("an echo connection has no address")

    def stored(self, items: list[Item], now: float) -> Effects:
        return ()

    def tick(self, silent: float) -> tuple[Effects, float]:
        return (), 0


class EchoDialect:
    """One shared session: there is no state."""

    first_tick = 0.0

    def __init__(self) -> None:
        self._session = EchoSession()

    def subprotocol(self, offered: list[str]) -> str | None:
        return None

    def claims(self, first: bytes) -> bool:
        return True

    def opened(self, request: Request) -> EchoSession:
        return self._session


def dialect(context: Context) -> EchoDialect:
    """The dialect for one worker."""
    return EchoDialect()
