"""The fork server: a process that has imported everything and opened nothing, from which other processes are forked.

A hundred processes then share one copy of the interpreter and its libraries, and a start takes milliseconds. It is
started by exec, so that what it forks inherits neither the threads nor the descriptors of its client. Client and fork
server exchange packets over one SOCK_SEQPACKET socket pair, one JSON object a packet:

    to the server    {"served": "module:function", "argument": ...}  first, once: `function(argument)` gives a `Served`
                     {"spawn": kind, "number": n}                    with the descriptors that it inherits
                     {"alive": n}
    from the server  {"ready": {...}}                                once everything is imported; see `Served.hello`
                     {"failed": why}                                 something cannot be imported, or `function` refuses
                     {"spawned": pid}                                with its pidfd
                     {"refused": why}                                it could not be forked
                     {"alive": n}

A forked process becomes a child of the client, which is its subreaper (`become_subreaper`), because it is forked by a
process that ends at once. So the client sees how it ends, and the server is not needed once it has forked; it may be
killed, stopped and replaced at any time. When the client ends, the socket ends and so does the server. A forked process
has to notice by itself that its client has ended, for example by the end of a socket that it inherits.

Other code may be put in place of this while the server runs. What it forks then is still what it has imported, so
`function` should import all that will be needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from router.common.errors import MendableError

PACKET_BYTES: Final = 1_048_576
MOST_DESCRIPTORS: Final = 64
"""That a process inherits: its line, and its listeners."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What may come from a terminal to all of us. The client decides what it means: the server ignores them, and what it
forks all but SIGTERM."""

Runner = Callable[[int, list[int]], int]
"""What a forked process does: with its number and the descriptors that it inherits, until its exit code."""

_PR_SET_CHILD_SUBREAPER: Final = 36
# As it was found, not resolved: an operator may put new code there by replacing a symbolic link.
_HOME: Final = str(Path(__file__).absolute().parents[2])
# Everything that can fail while modules are imported is sent to the client, this module's import too. It runs the code
# that the client runs, and none of the folder in which that was started: Python would look there first.
_BOOT: Final = """
import sys
fd, home = int(sys.argv[1]), sys.argv[2]
if home not in sys.path:
    sys.path.insert(0, home)
try:
    import router.common.fork_server
except BaseException as error:
    import json, socket
    with socket.socket(fileno=fd) as control:
        control.recv(1 << 20)  # the first packet: to close before it is read would take back what is sent
        control.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
    raise
sys.exit(router.common.fork_server.main(fd))
"""


@dataclass(frozen=True, slots=True)
class Served:
    """What a fork server can fork. `runners`: by kind. `title`: of the processes, before the kind. `hello`: sent to the
    client once everything is imported."""

    runners: Mapping[str, Runner]
    title: str
    hello: Mapping[str, Any] = field(default_factory=dict)


# ---- the client's side


def start(served: str, argument: Any) -> tuple[int, int, socket.socket]:
    """Start a fork server; its pid and pidfd, and the client's end of the socket. The caller has to collect it.

    served: `module:function`, called in the server with the argument, which goes there as JSON.
    Raises: OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pidfd = -1
    with theirs:
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES)
            command = [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), _HOME]
            # Until it ignores them itself, a signal to the whole process group must not end it.
            masked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)
            process.returncode = 0  # it is collected by its pidfd
            pidfd = os.pidfd_open(process.pid)
            ours.setblocking(False)
            ours.send(msgspec.json.encode({"served": served, "argument": argument}))
        except OSError:
            ours.close()
            if pidfd >= 0:
                os.close(pidfd)
            raise
    return process.pid, pidfd, ours


def become_subreaper(be_one: bool = True) -> None:
    """Make every descendant whose parent ends a child of this process; or no longer."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(be_one), 0, 0, 0)


def collect_strangers(known: Collection[int]) -> None:
    """Collect children that have ended and that have no waiter here: those of a server that died while it forked."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid in known:
                return  # it is collected by its pidfd, and others the next time
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)


# ---- the server


def main(fd: int) -> int:
    """The fork server itself: serve requests on the socket `fd` until its other end goes."""
    control = socket.socket(fileno=fd)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by the process that started us
    first = control.recv(PACKET_BYTES)
    try:
        import setproctitle

        asked = msgspec.json.decode(first)
        module, _, function = asked["served"].partition(":")
        served: Served = getattr(importlib.import_module(module), function)(asked["argument"])
        setproctitle.setproctitle(f"{served.title}: fork server")
    except MendableError as error:
        control.send(msgspec.json.encode({"failed": str(error)}))
        return 1
    except BaseException as error:  # new code may do anything while it is imported
        _tell_failure(control, error)
        return 1
    gc.collect()
    gc.freeze()
    try:
        control.send(msgspec.json.encode({"ready": served.hello}))
        _serve(control, served)
    except ConnectionError:  # the client has ended meanwhile
        pass
    return 0


def _serve(control: socket.socket, served: Served) -> None:
    """Fork what is asked for, until the other end goes. Raises: ConnectionError if that is noticed by writing."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES, MOST_DESCRIPTORS)
        if not packet:
            return
        asked = msgspec.json.decode(packet)
        if "alive" in asked:
            control.send(packet)
            continue
        try:
            between = os.fork()
        except OSError as error:
            control.send(msgspec.json.encode({"refused": str(error)}))
        else:
            if between == 0:
                os._exit(_fork_again(control, served, asked, descriptors))
            os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_again(control: socket.socket, served: Served, asked: dict[str, Any], descriptors: list[int]) -> int:
    try:
        pid = os.fork()
        if pid == 0:
            control.close()
            os._exit(_child(served, asked, descriptors))
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        with contextlib.suppress(ConnectionError):
            control.send(msgspec.json.encode({"refused": str(error)}))
        return 1
    with contextlib.suppress(OSError):  # the client does not wait for it any more: it will notice the client's end
        socket.send_fds(control, [msgspec.json.encode({"spawned": pid})], [pidfd])
    return 0


def _child(served: Served, asked: dict[str, Any], descriptors: list[int]) -> int:
    import setproctitle

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # but the others stay ignored: they are the client's
    kind, number = asked["spawn"], asked["number"]
    setproctitle.setproctitle(f"{served.title}: {kind}" if number < 0 else f"{served.title}: {kind} {number}")
    try:
        return served.runners[kind](number, descriptors)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _tell_failure(control: socket.socket, error: BaseException) -> None:
    """Report that this process cannot be a fork server, and why; the whole trace goes to stderr."""
    with contextlib.suppress(OSError):
        control.send(msgspec.json.encode({"failed": in_one_line(error)}))
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error)


def in_one_line(error: BaseException) -> str:
    """The exception, and the place in the code that it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError) or not frames:  # its text names the place
        return text
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})"
