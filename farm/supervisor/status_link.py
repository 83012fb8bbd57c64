"""The supervisor's link to the router: reads its status and the workers' snapshots, sets broadcasts, and has performed
what users of the admin port ask for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio
import zmq

from router.common import curve, logs
from router.common import messages as m
from router.common.curve import ClusterKey
from router.common.wire import NEWEST

ASK_TIMEOUT_S: Final = 1.0
_DURABLE_S: Final = 5.0
_MAX_BYTES: Final = 64 * 2**20
_MANAGED_S: Final = 10.0
_QUESTIONS: Final = 64
_MANAGED: Final = 32
"""How many of these may be actions: while they wait, the farm's own health can be asked for all the same."""
_Question = m.AskStatus | m.SetBroadcast | m.Manage


class StatusLink:
    """One DEALER socket with one owner task; a request without an answer in a second means that there is no router."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], where: str | None) -> None:
        """where: its address; None: it is not known yet."""
        self._context = context
        self._where = where
        self._key: ClusterKey | None = None
        self._moved = False
        self._socket = self._connected()
        self._number = 0
        self._waiting: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}
        self._managed = 0
        self._questions: deque[_Question] = deque()  # not sent yet
        self._wake = trio.Event()

    def _connected(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, _QUESTIONS)
        socket.setsockopt(zmq.RCVHWM, _QUESTIONS)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        if self._key is not None:
            curve.connect(socket, self._key)
        if self._where is not None:
            socket.connect(self._where)
        return socket

    def move(self, where: str | None, key: ClusterKey | None = None) -> None:
        """The router is there from now on. key: of the cluster, where it is on another host. None: it is not needed."""
        if (where, key) != (self._where, self._key):
            self._where, self._key, self._moved = where, key, True
            self._wake.set()

    async def ask(self, host: str = "") -> dict[str, Any] | None:
        """The router's status, with the workers of this host; None if it does not answer."""
        return await self._question(lambda number: m.AskStatus(number, host), ASK_TIMEOUT_S)

    async def set_broadcast(self, space: str, key: str, value: str | None) -> dict[str, Any] | None:
        """Make the router set a broadcast, remove it (None), or only list them (an empty key).

        Returns: `outcome` and `broadcasts` of the space, once that is durable; None if it does not answer: whether it
        was set is not known then.
        """
        return await self._question(
            lambda number: m.SetBroadcast(number, space, key, value), _DURABLE_S if key else ASK_TIMEOUT_S
        )

    async def manage(self, action: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Have the router perform an action (`router.core.managing`). Returns: what it answers; None if it does not
        (whether it was done is not known then), or if too many wait for it already."""
        if self._managed >= _MANAGED:
            return None
        self._managed += 1
        try:
            return await self._question(lambda number: m.Manage(number, action, arguments), _MANAGED_S)
        finally:
            self._managed -= 1

    async def _question(self, numbered: Callable[[int], _Question], timeout: float) -> dict[str, Any] | None:
        if len(self._waiting) >= _QUESTIONS:
            return None
        self._number = number = self._number + 1
        answered, answer = trio.Event(), list[dict[str, Any]]()
        self._waiting[number] = (answered, answer)
        self._questions.append(numbered(number))
        self._wake.set()
        with trio.move_on_after(timeout):
            await answered.wait()
        del self._waiting[number]
        return answer[0] if answer else None

    async def run(self) -> None:
        """Own the socket: send requests, receive answers."""
        while True:
            if self._moved:
                self._moved = False
                self._socket.close()
                self._socket = self._connected()
            fd: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]
            self._drain()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_readable, fd, nursery.cancel_scope)
                nursery.start_soon(self._until_asked, nursery.cancel_scope)

    async def _until_readable(self, fd: int, scope: trio.CancelScope) -> None:
        await trio.lowlevel.wait_readable(fd)
        scope.cancel()

    async def _until_asked(self, scope: trio.CancelScope) -> None:
        await self._wake.wait()
        scope.cancel()

    def _drain(self) -> None:
        self._wake = trio.Event()
        while self._questions:
            question = self._questions.popleft()
            try:
                data = NEWEST.encode(question)
            except Exception as error:  # for example, half a character in a broadcast
                logs.limited("status.not_packed", error=repr(error))
                if (asked := self._waiting.get(question.number)) is not None:
                    asked[0].set()
                continue
            try:
                self._socket.send(data, zmq.NOBLOCK)
            except zmq.Again:
                self._questions.clear()  # no router for long: every waiter gets None
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                envelope = NEWEST.of_router(parts[0] if len(parts) == 1 else b"", _MAX_BYTES)
                if not isinstance(envelope, m.Status):
                    raise m.MessageError(f"{type(envelope).__name__} is no answer")
            except m.MessageError as error:
                logs.limited("status.not_understood", error=str(error))
                continue
            if envelope.number in self._waiting:
                answered, answers = self._waiting[envelope.number]
                answers.append(envelope.answer)
                answered.set()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
