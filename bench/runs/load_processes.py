"""The load processes of a run: started here, spoken with over their links, and gone when the block ends."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.load.link import Link, LinkClosedError, Message
from bench.load.nest import PACKET_BYTES

END_SECONDS: Final = 5.0
END_POLL_SECONDS: Final = 0.005
FORK_SECONDS: Final = 60.0


class Nest:
    """The process that forks load processes (`bench.load.nest`), and what it knows of them."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(FORK_SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.load.nest", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # a process group of its own keeps Ctrl-C for the bench; a session of its own would let the scheduler
                # (autogroup) share the cores out by sessions and starve one part of the run for another
                process_group=0,
            )

    def fork(self, module: str, link: socket.socket) -> int:
        """Fork a process that runs `module.main(descriptor of the link)`; its pid."""
        return int(self._ask({"fork": module}, [link.fileno()])["pid"])

    def poll(self, pid: int) -> int | None:
        """The exit code of a process that ended (negative: the signal), None while it runs; once it was said, done."""
        status = self._ask({"poll": pid})["status"]
        return None if status is None else int(status)

    def close(self) -> int:
        """End it; its exit code."""
        self._control.close()
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
            packet = self._control.recv(PACKET_BYTES)
        except OSError:
            packet = b""
        if not packet:
            raise BenchError(f"the process that starts load processes does not answer, or ended: code {self.close()}")
        answer: dict[str, Any] = json.loads(packet)
        return answer


class Child:
    """A process of the bench and the link to it."""

    def __init__(self, nest: Nest, module: str, name: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.pid = nest.fork(module, theirs)
        self.name = name
        self.link = Link(ours)
        self.progress: dict[str, Any] = {}
        self._nest = nest
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self._code is None:
            self._code = self._nest.poll(self.pid)
        return self._code

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; its exit code, None if it runs on."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(END_POLL_SECONDS)
        return code

    def kill(self) -> None:
        """End it now, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(END_SECONDS)


class LoadProcesses:
    """A context manager that owns the children of a run. They end with the block, and with this process
    however it dies."""

    def __init__(self, interrupt: Interrupt | None = None) -> None:
        self.interrupt = interrupt or Interrupt()
        self.children: list[Child] = []
        self._nest: Nest | None = None
        self._kept: list[tuple[Child, Message]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.interrupt.wake, selectors.EVENT_READ)

    def __enter__(self) -> "LoadProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss(list(self.children))
        self._selector.close()
        if self._nest is not None:
            self._nest.close()

    def start(self, module: str, name: str, *blobs: bytes, **fields: Any) -> Child:
        """Fork a process that runs `module.main(descriptor)` and send it its `begin`."""
        if self._nest is None:
            self._nest = Nest()
        child = Child(self._nest, module, name)
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
        """Tell them to stop, and kill those that do not."""
        for child in children:
            self.children.remove(child)
            self._selector.unregister(child.link.sock)
            with suppress(LinkClosedError):
                child.link.send("stop")
        deadline = time.monotonic() + END_SECONDS
        for child in children:
            while time.monotonic() < deadline:
                # what a child still has to say must be read, or it never comes to its stop
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
