"""The supervisor's side of its processes: the fork server, and what is forked from it.

Each process is known by its pidfd. That shows its end whatever its parent was, and what is signalled through it is
never another process with the same number.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import trio

from farm.admin_tokens import without_tokens
from farm.supervisor import interface
from router.common import fork_server
from router.common.fork_server import PACKET_BYTES
from router.common.lifecycle import finish, notice
from router.common.options import Settings, as_mapping
from router.common.priority import ORIGINAL

KILLED_S: Final = 5.0
"""How long a process may take to end after SIGKILL."""
_WHY_BYTES: Final = 4096
_COLLECT_TRIES: Final = 100
_COLLECT_WAIT_S: Final = 0.02
_END_S: Final = 1.0  # from the end of its socket to its own
_SERVED: Final = "farm.supervisor.runners:served"


class Child:
    """A process. `ended` is set when it has ended, with its exit code (negative: signal) in `status`.

    line: our end of the socket pair on which it reports why it failed, and notices our end. version: of the code that
    it runs; "": its fork server has not said.
    """

    def __init__(self, pid: int, pidfd: int, line: socket.socket | None = None, version: str = "") -> None:
        self.pid = pid
        self.version = version
        self.ended = trio.Event()
        self.relieved = trio.Event()
        """Set when it has ended, and when another has its place."""
        self.status: int | None = None
        self.why = ""
        self._pidfd = pidfd
        self._line = line

    async def watch(self) -> None:
        """Wait for its end, and collect it."""
        try:
            await trio.lowlevel.wait_readable(self._pidfd)
            self.status = await self._collect()
        finally:
            if self._line is not None:
                with contextlib.suppress(OSError):
                    self.why = self._line.recv(_WHY_BYTES, socket.MSG_DONTWAIT).decode(errors="replace").strip()
            self.ended.set()
            self.relieved.set()
            self.let_go()

    async def _collect(self) -> int | None:
        for _ in range(_COLLECT_TRIES):
            try:
                found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222
            except ChildProcessError:
                found = None  # it is not our child yet: its parent is about to end
            if found is not None:
                return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            await trio.sleep(_COLLECT_WAIT_S)
        return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, number)

    def notice(self, over: float | None = None) -> None:
        """Make it answer every probe as not ready: it is to be ended soon, and then to let its clients go over so many
        seconds."""
        self._say(notice(over))

    def finish(self) -> None:
        """Make it take nothing new from clients, and finish what there is: it is to be ended soon."""
        self._say(finish())

    def _say(self, line: bytes) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.send(line, socket.MSG_DONTWAIT)

    def let_go(self) -> None:
        """Close the descriptors; a process that still runs sees that and ends by itself."""
        if self._line is not None:
            self._line.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class ForkServerFailed(Exception):
    """The fork server does not start, has died or does not answer; the text names the reason. Another is needed."""


class ForkServerClosed(ForkServerFailed):
    """The fork server was closed here during a request: another has taken its place."""


class SpawnRefused(Exception):
    """The machine does not allow another process now; the text gives the reason."""


class ForkServer:
    """A fork server that has shown that it can import everything."""

    def __init__(self, settings: Settings, nursery: trio.Nursery, timeout: float) -> None:
        """timeout: how long it may take to fork. Raises: ForkServerFailed."""
        self._nursery = nursery
        self._timeout = timeout
        self._lock = trio.Lock()
        self._number = 0
        self.version = ""
        self.hello: dict[str, Any] = {}
        """What its code says of itself (`farm.supervisor.interface`)."""
        try:
            argument = interface.for_code(as_mapping(without_tokens(settings)))
            pid, pidfd, control = fork_server.start(_SERVED, argument)
        except OSError as error:
            raise ForkServerFailed(f"cannot be started: {error.strerror or error}") from None
        with contextlib.suppress(OSError):  # it has ended: that is noticed below
            os.setpriority(os.PRIO_PROCESS, pid, ORIGINAL)  # ours would be the workers' too
        self.process = Child(pid, pidfd)
        self._socket = trio.socket.from_stdlib_socket(control)
        nursery.start_soon(self.process.watch)

    @classmethod
    async def start(cls, settings: Settings, nursery: trio.Nursery, timeout: float, patience: float) -> ForkServer:
        """Start one and wait, at most `patience` seconds, until it has imported everything.

        Raises: ForkServerFailed.
        """
        server = cls(settings, nursery, timeout)
        try:
            try:
                answer, _ = await server._answer(patience)
            except ForkServerFailed as error:
                with trio.move_on_after(_END_S):
                    await server.process.ended.wait()
                    raise ForkServerFailed(f"{error}, with exit status {server.process.status}") from None
                raise
            if "ready" not in answer:
                raise ForkServerFailed(str(answer.get("failed", answer)))
            server.hello = answer["ready"]
            if why := interface.why_not_run(server.hello):
                raise ForkServerFailed(why)
            server.version = str(server.hello.get("version", ""))
        except BaseException:
            server.close()
            raise
        return server

    @property
    def alive(self) -> bool:
        """Whether it can be sent requests."""
        return self._socket.fileno() >= 0 and not self.process.ended.is_set()

    async def spawn(self, kind: str, number: int = -1, sockets: Iterable[socket.socket] = ()) -> Child:
        """Fork a process; it inherits the sockets.

        Raises: ForkServerFailed, and the fork server is killed: it has died, or stands still. SpawnRefused.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise SpawnRefused(str(error)) from None
        with theirs:
            fds = [theirs.fileno(), *(each.fileno() for each in sockets)]
            try:
                answer, descriptors = await self._ask({"spawn": kind, "number": number}, fds)
                if "refused" in answer:
                    raise SpawnRefused(answer["refused"])
                if not descriptors:  # the kernel has closed it; what was forked sees its line end
                    raise SpawnRefused("the supervisor is out of descriptors")
                child = Child(answer["spawned"], descriptors[0], ours, self.version)
            except BaseException:
                ours.close()
                raise
        self._nursery.start_soon(child.watch)
        return child

    async def check_alive(self) -> None:
        """Check that it serves. Raises: ForkServerFailed, and the fork server is killed."""
        self._number += 1
        await self._ask({"alive": self._number}, [])

    async def _ask(self, question: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        async with self._lock:
            try:
                if not self.alive:
                    raise ForkServerFailed("has gone")
                anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                with trio.move_on_after(self._timeout):
                    await self._socket.sendmsg([msgspec.json.encode(question)], anc)
                    return await self._answer(self._timeout)
                raise ForkServerFailed(f"has not answered within {self._timeout:g} s")
            except OSError as error:
                self.close()
                raise ForkServerFailed(f"has gone: {error.strerror or error}") from None
            except trio.ClosedResourceError:
                raise ForkServerClosed("was closed meanwhile") from None
            except BaseException:  # whatever it sends from now on would be the answer to another request
                self.close()
                raise

    async def _answer(self, patience: float) -> tuple[dict[str, Any], list[int]]:
        descriptors = array.array("i")
        room = socket.CMSG_SPACE(descriptors.itemsize)
        with trio.move_on_after(patience):
            try:
                data, anc, _, _ = await self._socket.recvmsg(PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
            except OSError as error:
                raise ForkServerFailed(f"has gone: {error.strerror or error}") from None
            for level, kind, payload in anc:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
            if not data:
                raise ForkServerFailed("has died")
            answer: dict[str, Any] = msgspec.json.decode(data)
            return answer, list(descriptors)
        raise ForkServerFailed(f"has not answered within {patience:g} s")

    def close(self) -> None:
        """End it. What it has forked goes on."""
        self._socket.close()
        self.process.signal(signal.SIGKILL)
