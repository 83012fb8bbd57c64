"""The load processes of a run: started here, spoken with over their links, and gone when the block ends."""

import os
import select
import selectors
import signal
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

import msgspec

from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.load.link import Link, LinkClosedError, Message
from router.common import fork_server
from router.common.fork_server import PACKET_BYTES

SERVED: Final = "bench.load.runners:served"
END_SECONDS: Final = 5.0
END_POLL_SECONDS: Final = 0.005
FORK_SECONDS: Final = 60.0


class Process:
    """A process that is known by its pidfd."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code (negative: the signal), None while it runs."""
        if self._code is None:
            try:
                ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return None  # it is not ours yet: the process that forked it is about to end
            if ended is not None:
                self._code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                os.close(self._pidfd)
        return self._code

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; its exit code, None if it runs on."""
        deadline = time.monotonic() + seconds
        if self._code is None:
            select.select([self._pidfd], [], [], max(0.0, seconds))
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(END_POLL_SECONDS)
        return code

    def kill(self) -> None:
        """End it now, if it has not ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.wait(END_SECONDS)


class ForkServer:
    """The process that load processes are forked from (`router.common.fork_server`)."""

    def __init__(self) -> None:
        """Raises: BenchError."""
        try:
            pid, pidfd, self._control = fork_server.start(SERVED, None)
        except OSError as error:
            raise BenchError(f"no process for load processes can be started: {error}") from None
        self._process = Process(pid, pidfd)
        self._control.settimeout(FORK_SECONDS)
        answer, _ = self._receive()
        if "ready" not in answer:
            self.close()
            raise BenchError(f"the process that starts load processes cannot: {answer.get('failed', answer)}")

    def spawn(self, kind: str, link: socket.socket) -> tuple[int, int]:
        """Fork a load process with this link; its pid and its pidfd.

        Raises:
          BenchError: the machine does not allow it.
        """
        with suppress(OSError):  # then there is no answer either
            socket.send_fds(self._control, [msgspec.json.encode({"spawn": kind, "number": -1})], [link.fileno()])
        answer, descriptors = self._receive()
        if not descriptors:
            raise BenchError(f"no load process could be started: {answer.get('refused', 'out of descriptors')}")
        return int(answer["spawned"]), descriptors[0]

    def close(self) -> int | None:
        """End it; its exit code. What it has forked goes on."""
        self._control.close()
        if self._process.wait(END_SECONDS) is None:
            self._process.kill()
        return self._process.poll()

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES, 1)
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            raise BenchError(f"the process that starts load processes does not answer, or ended: code {self.close()}")
        answer: dict[str, Any] = msgspec.json.decode(packet)
        return answer, descriptors


class Child(Process):
    """A load process and the link to it."""

    def __init__(self, server: ForkServer, kind: str, name: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            super().__init__(*server.spawn(kind, theirs))
        self.name = name
        self.link = Link(ours)
        self.progress: dict[str, Any] = {}


class LoadProcesses:
    """A context manager that owns the children of a run. They end with the block, and with this process
    however it dies."""

    def __init__(self, interrupt: Interrupt | None = None) -> None:
        self.interrupt = interrupt or Interrupt()
        self.children: list[Child] = []
        self._server: ForkServer | None = None
        self._kept: list[tuple[Child, Message]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.interrupt.wake, selectors.EVENT_READ)

    def __enter__(self) -> "LoadProcesses":
        fork_server.become_subreaper()  # what is forked is a child of this process then, which sees how it ends
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss(list(self.children))
        self._selector.close()
        if self._server is not None:
            self._server.close()
        fork_server.become_subreaper(False)

    def start(self, kind: str, name: str, *blobs: bytes, **fields: Any) -> Child:
        """Fork a load process of a kind of `bench.load.runners` and send it its `begin`."""
        if self._server is None:
            self._server = ForkServer()
        child = Child(self._server, kind, name)
        self.children.append(child)
        self._selector.register(child.link.sock, selectors.EVENT_READ, child)
        self._send(child, "begin", *blobs, **fields)
        return child

    def send(self, children: list[Child], kind: str, **fields: Any) -> None:
        """Send one message to each."""
        for child in children:
            self._send(child, kind, **fields)

    def _send(self, child: Child, kind: str, *blobs: bytes, **fields: Any) -> None:
        try:
            child.link.send(kind, *blobs, **fields)
        except LinkClosedError:
            raise self._ended(child) from None

    def receive(self, timeout: float) -> list[tuple[Child, Message]]:
        """What the children sent; progress is kept in `child.progress` and not returned.

        Returns early, perhaps with nothing, when a progress came or the run was interrupted.

        Raises:
          BenchError: a child ended that should not have.
        """
        received, self._kept = self._kept, []
        for key, _ in self._selector.select(0 if received else timeout):
            child = key.data
            if child is None:
                self._selector.unregister(self.interrupt.wake)
                continue
            try:
                messages = child.link.read()
            except LinkClosedError:
                raise self._ended(child) from None
            for message in messages:
                if message.kind == "progress":
                    child.progress = message.fields
                else:
                    received.append((child, message))
        return received

    def keep(self, received: list[tuple[Child, Message]]) -> None:
        """Messages that are for another caller: the next `receive` returns them."""
        self._kept += received

    def gather(self, children: list[Child], kind: str, seconds: float = 60.0) -> list[Message]:
        """Wait until each of the children sent this; their messages in the children's order.

        Raises:
          BenchError: a child ended, or did not answer in this time.
        """
        messages: dict[int, Message] = {}
        pids = {child.pid for child in children}
        others = []
        deadline = time.monotonic() + seconds
        while len(messages) < len(children):
            if time.monotonic() > deadline:
                raise BenchError(f"the load processes did not answer within {seconds:g} s")
            for child, message in self.receive(1.0):
                if message.kind == kind and child.pid in pids:
                    messages[child.pid] = message
                else:
                    others.append((child, message))
        self.keep(others)
        return [messages[child.pid] for child in children]

    def dismiss(self, children: list[Child]) -> None:
        """Have them stop, and kill those that do not."""
        for child in children:
            self.children.remove(child)
            self._selector.unregister(child.link.sock)
            with suppress(LinkClosedError):
                child.link.send("stop")
        deadline = time.monotonic() + END_SECONDS
        for child in children:
            while time.monotonic() < deadline:
                # what a child still sends must be read, or it never comes to its stop
                try:
                    child.link.sock.settimeout(max(0.001, deadline - time.monotonic()))
                    if not child.link.sock.recv(1 << 20):
                        child.wait(max(0.0, deadline - time.monotonic()))
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            child.kill()
            child.link.sock.close()

    @staticmethod
    def _ended(child: Child) -> BenchError:
        code = child.wait(END_SECONDS)
        return BenchError(f"{child.name} (pid {child.pid}) ended unexpectedly with code {code}")
