"""The smallest dialect: text back as text, binary as binary. For WebSocket conformance suites; off by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from farm.dialects import Binary, DeviceSide, Dialect, Effects, Session
from farm.transports.request import Request
from router.common.auth_settings import auth_url_option
from router.common.options import Section
from router.dialects import DialectSpec


@dataclass(frozen=True)
class EchoOptions(Section):
    SECTION: ClassVar[str] = "echo"
    HELP: ClassVar[str] = "The echo dialect, for conformance suites."

    auth_url: str = auth_url_option()


SPEC: Final = DialectSpec(name="echo", on=False, sections=(EchoOptions,))


class EchoSession(Session):
    """Holds nothing at all; one serves every connection."""

    __slots__ = ()

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        return (Binary(message),) if binary else (message,)


class EchoDialect(Dialect):
    """One shared session: there is no state."""

    __slots__ = ("_session",)

    def __init__(self) -> None:
        self._session = EchoSession()

    def opened(self, request: Request) -> EchoSession:
        return self._session


SIDE: Final = DeviceSide(
    spec=SPEC,
    make=lambda context: EchoDialect(),
    paths=("/echo",),
    rank=0,
)
