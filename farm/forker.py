"""The forker: a process that has imported everything and opened nothing, from which router and workers are forked.

A hundred workers then share one copy of the interpreter and its libraries, and a restart takes milliseconds. It is
started by exec, so that what it forks inherits neither the supervisor's threads nor its descriptors. Supervisor and
forker speak over one SOCK_SEQPACKET socket pair, one JSON object a packet:

    to the forker    {"settings": {...}}                                  first, once
                     {"spawn": "worker" | "router", "shard": n}           with two descriptors: listener, parent pipe
    from the forker  {"spawned": pid}                                     in the order of the requests
                     {"ended": pid, "status": exit code, negative: signal}

When the supervisor goes, the socket ends and so does the forker; what it forked sees its parent pipe end.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from router.options import Settings, as_mapping, from_mapping

_PACKET_BYTES: Final = 1_048_576
_DESCRIPTORS: Final = 2


# ---------------------------------------------------------------------- the forker's side


def main(fd: int) -> int:
    """The forker itself: serve requests on the socket `fd` until its other end goes."""
    import setproctitle

    from farm.settings import all_sections

    setproctitle.setproctitle("farm: forker")
    control = socket.socket(fileno=fd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    tables = msgspec.json.decode(control.recv(_PACKET_BYTES))["settings"]
    settings = from_mapping(all_sections(), tables)
    runners = _import_all()
    gc.collect()
    gc.freeze()
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready == wake_read:
                os.read(wake_read, 4096)
                for pid, code in _ended():
                    control.send(msgspec.json.encode({"ended": pid, "status": code}))
                continue
            packet, descriptors, _, _ = socket.recv_fds(control, _PACKET_BYTES, _DESCRIPTORS)
            if not packet:
                return 0
            asked = msgspec.json.decode(packet)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                control.close()
                os.close(wake_read)
                os.close(wake_write)
                os._exit(_child(runners, asked, settings, descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
            control.send(msgspec.json.encode({"spawned": pid}))


def _import_all() -> dict[str, Callable[..., int]]:
    import farm.worker.main
    import router.process

    return {"worker": farm.worker.main.run, "router": router.process.run}


def _child(runners: dict[str, Callable[..., int]], asked: dict[str, Any], settings: Settings, fds: list[int]) -> int:
    import setproctitle

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    listener, parent = socket.socket(fileno=fds[0]), fds[1]
    kind = asked["spawn"]
    try:
        if kind == "worker":
            setproctitle.setproctitle(f"farm: worker {asked['shard']}")
            return runners[kind](settings, asked["shard"], listener, parent)
        setproctitle.setproctitle("farm: router")
        return runners[kind](settings, listener, parent)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _ended() -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


# ---------------------------------------------------------------------- the supervisor's side


class Child:
    """A forked process. `ended` is set when it has gone, with its exit code (negative: signal) in `status`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = trio.Event()
        self.status: int | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs: its number is not used again before its end was told."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ForkerGone(Exception):
    """The forker has died, and nothing can be started any more."""


class Forker:
    """The supervisor's handle on its forker."""

    def __init__(self, settings: Settings) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET_BYTES)
        command = [sys.executable, "-c", f"import sys, farm.forker; sys.exit(farm.forker.main({theirs.fileno()}))"]
        self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        theirs.close()
        ours.send(msgspec.json.encode({"settings": as_mapping(settings)}))
        self._socket = trio.socket.from_stdlib_socket(ours)
        self._children: dict[int, Child] = {}
        self._ended_early: dict[int, int] = {}
        self._spawned_send, self._spawned = trio.open_memory_channel[int](16)
        self._lock = trio.Lock()
        self._alive, self._alive_write = os.pipe2(os.O_CLOEXEC)
        self.pid = self._process.pid

    async def run(self) -> None:
        """Hear of what was spawned and what ended, until cancelled. Raises: ForkerGone."""
        while True:
            try:
                packet = await self._socket.recv(_PACKET_BYTES)
            except ConnectionResetError:
                packet = b""
            if not packet:
                raise ForkerGone
            told = msgspec.json.decode(packet)
            if "spawned" in told:
                self._spawned_send.send_nowait(told["spawned"])
                continue
            child = self._children.pop(told["ended"], None)
            if child is None:
                self._ended_early[told["ended"]] = told["status"]
            else:
                child.status = told["status"]
                child.ended.set()

    async def spawn(self, kind: str, shard: int, listener: socket.socket) -> Child:
        """Fork a worker or the router; it inherits the listener."""
        request = msgspec.json.encode({"spawn": kind, "shard": shard})
        async with self._lock:
            sending = self._socket.fileno()
            await trio.lowlevel.wait_writable(sending)
            with socket.socket(fileno=os.dup(sending)) as plain:
                socket.send_fds(plain, [request], [listener.fileno(), self._alive])
            child = Child(await self._spawned.receive())
        early = self._ended_early.pop(child.pid, None)
        if early is None:
            self._children[child.pid] = child
        else:
            child.status = early
            child.ended.set()
        return child

    @property
    def childless(self) -> bool:
        """Whether nothing that it forked runs any more."""
        return not self._children

    def close(self) -> None:
        """End the forker. What still runs sees its parent pipe end."""
        self._socket.close()
        os.close(self._alive_write)
        os.close(self._alive)
        self._process.wait()
