"""The processes of a run: started here, heard here, and gone when the block ends."""

import selectors
import socket
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.link import Link, LinkClosedError, Word

END_SECONDS: Final = 5.0


class Child:
    """A process of the bench and the link to it."""

    def __init__(self, module: str, name: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # a process group of its own keeps Ctrl-C for the bench; a session of its own would let the scheduler
                # (autogroup) share the cores out by sessions and starve one part of the run for another
                process_group=0,
            )
        self.name = name
        self.pid = self.process.pid
        self.link = Link(ours)
        self.progress: dict[str, Any] = {}


class Crew:
    """A context manager that owns the children of a run. They end with the block, and with this process
    however it dies."""

    def __init__(self, interrupt: Interrupt | None = None) -> None:
        self.interrupt = interrupt or Interrupt()
        self.children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.interrupt.wake, selectors.EVENT_READ)
        self._watching = True

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss(list(self.children))
        self._selector.close()

    def start(self, module: str, name: str, *blobs: bytes, **fields: Any) -> Child:
        """Start `python -m module FD` and send it its `begin`."""
        child = Child(module, name)
        self.children.append(child)
        self._selector.register(child.link.sock, selectors.EVENT_READ, child)
        self._tell(child, "begin", *blobs, **fields)
        return child

    def tell(self, children: list[Child], kind: str, **fields: Any) -> None:
        """Send one word to each."""
        for child in children:
            self._tell(child, kind, **fields)

    def _tell(self, child: Child, kind: str, *blobs: bytes, **fields: Any) -> None:
        try:
            child.link.send(kind, *blobs, **fields)
        except LinkClosedError:
            raise self._ended(child) from None

    def hear(self, timeout: float) -> list[tuple[Child, Word]]:
        """What the children said; progress is kept in `child.progress` and not returned.

        Returns early, perhaps with nothing, when a progress came or the run was interrupted.

        Raises:
          BenchError: a child ended that should not have.
        """
        heard = []
        for key, _ in self._selector.select(timeout):
            child = key.data
            if child is None:
                self._selector.unregister(self.interrupt.wake)
                continue
            try:
                words = child.link.read()
            except LinkClosedError:
                raise self._ended(child) from None
            for word in words:
                if word.kind == "progress":
                    child.progress = word.fields
                else:
                    heard.append((child, word))
        return heard

    def gather(self, children: list[Child], kind: str, seconds: float = 60.0) -> list[Word]:
        """Wait until each of the children said this; their words in the children's order.

        Raises:
          BenchError: a child ended, or did not answer in this time.
        """
        words: dict[int, Word] = {}
        deadline = time.monotonic() + seconds
        while len(words) < len(children):
            if time.monotonic() > deadline:
                raise BenchError(f"the load processes did not answer within {seconds:g} s")
            for child, word in self.hear(1.0):
                if word.kind == kind:
                    words[child.pid] = word
        return [words[child.pid] for child in children]

    def dismiss(self, children: list[Child]) -> None:
        """Tell them to stop, and kill those that do not."""
        for child in children:
            self.children.remove(child)
            self._selector.unregister(child.link.sock)
            with suppress(LinkClosedError):
                child.link.send("stop")
        deadline = time.monotonic() + END_SECONDS
        for child in children:
            child.link.sock.setblocking(False)
            while child.process.poll() is None and time.monotonic() < deadline:
                # what a child still has to say must be read, or it never comes to its stop
                try:
                    child.link.sock.settimeout(0.05)
                    if not child.link.sock.recv(1 << 20):
                        child.process.wait(max(0.0, deadline - time.monotonic()))
                except (TimeoutError, subprocess.TimeoutExpired):
                    continue
                except OSError:
                    break
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()
            child.link.sock.close()

    @staticmethod
    def _ended(child: Child) -> BenchError:
        code = child.process.wait()
        return BenchError(f"{child.name} (pid {child.pid}) ended unexpectedly with code {code}")
