"""What the app-server sides of dialects do for their device sides, asked by INVOKE. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Reply(Protocol):
    """Called once, at once or later: OK with bytes for the device side, or another status of `router.common.messages`
    without."""

    def __call__(self, status: int, result: bytes | None = None) -> None: ...


Procedure = Callable[[bytes, bytes, Reply], None]
"""Gets the address that it is about, the arguments, and where the reply goes. Arguments come from a worker: malformed
ones may raise `messages.MessageError`, before there is a reply. A request may come twice, from a worker whose router
died before it had replied."""


class Procedures:
    """One a dialect."""

    __slots__ = ("_procedures", "get")

    def __init__(self) -> None:
        self._procedures: dict[str, Procedure] = {}
        self.get = self._procedures.get

    def register(self, dialect: str, procedure: Procedure) -> None:
        """Have this one called for what the dialect's device side asks."""
        self._procedures[dialect] = procedure
