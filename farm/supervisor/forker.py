"""The forker: a process that has imported everything and opened nothing, from which router and workers are forked.

A hundred workers then share one copy of the interpreter and its libraries, and a restart takes milliseconds. It is
started by exec, so that what it forks inherits neither the supervisor's threads nor its descriptors. Supervisor and
forker speak over one SOCK_SEQPACKET socket pair, one JSON object a packet:

    to the forker    {"settings": {...}}                             first, once
                     {"spawn": "worker" | "router", "shard": n}      with two descriptors: line, listener
                     {"spawn": "check"}                              with one descriptor: line
                     {"alive": n}
    from the forker  {"ready": version, "link": PROTOCOL}            once everything is imported
                     {"failed": why}                                 something cannot be imported
                     {"spawned": pid}                                with its pidfd
                     {"refused": why}                                it could not be forked
                     {"alive": n}

What is forked is nobody's child but the supervisor's, which is its subreaper (PR_SET_CHILD_SUBREAPER): it is forked by
a process that ends at once. So the supervisor sees how it ends, and nothing rests on the forker once it has forked; it
may be killed, stopped and replaced at any time. When the supervisor goes, the socket ends and so does the forker, and
what it forked sees the line to its supervisor (`router.common.lifecycle`) end.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

import msgspec

from router import __version__
from router.common import lifecycle
from router.common.messages import PROTOCOL
from router.common.options import Settings, from_mapping

PACKET_BYTES: Final = 1_048_576
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What may come from a terminal to all of us. The supervisor decides what it means."""
_DESCRIPTORS: Final = 2

Runner = Callable[[Settings, int, list[int]], int]


def main(fd: int) -> int:
    """The forker itself: serve requests on the socket `fd` until its other end goes."""
    control = socket.socket(fileno=fd)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # who started us has blocked them up to here
    first = control.recv(PACKET_BYTES)
    try:
        import setproctitle

        from farm.settings import all_sections

        setproctitle.setproctitle("farm: forker")
        settings = from_mapping(all_sections(), msgspec.json.decode(first)["settings"])
        runners = _import_all()
    except BaseException as error:  # new code may do anything while it is imported
        tell_failure(control, error)
        return 1
    gc.collect()
    gc.freeze()
    try:
        control.send(msgspec.json.encode({"ready": __version__, "link": PROTOCOL}))
        _serve(control, runners, settings)
    except ConnectionError:  # the supervisor has gone meanwhile, and says nothing more
        pass
    return 0


def _serve(control: socket.socket, runners: dict[str, Runner], settings: Settings) -> None:
    """Fork what is asked for, until the other end goes. Raises: ConnectionError if that is noticed by writing."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES, _DESCRIPTORS)
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
                os._exit(_fork_again(control, runners, asked, settings, descriptors))
            os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def tell_failure(control: socket.socket, error: BaseException) -> None:
    """Say that this forker cannot be one, and why; all of the trace goes to stderr."""
    with contextlib.suppress(OSError):
        control.send(msgspec.json.encode({"failed": _in_one_line(error)}))
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error)


def _in_one_line(error: BaseException) -> str:
    """The exception, and the place in the code that it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError) or not frames:  # whose text has the place
        return text
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})"


def _fork_again(
    control: socket.socket,
    runners: dict[str, Runner],
    asked: dict[str, Any],
    settings: Settings,
    descriptors: list[int],
) -> int:
    try:
        pid = os.fork()
        if pid == 0:
            control.close()
            os._exit(_child(runners, asked, settings, descriptors))
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        with contextlib.suppress(ConnectionError):
            control.send(msgspec.json.encode({"refused": str(error)}))
        return 1
    with contextlib.suppress(OSError):  # nobody waits for it any more: it will see its line end
        socket.send_fds(control, [msgspec.json.encode({"spawned": pid})], [pidfd])
    return 0


def _import_all() -> dict[str, Runner]:
    import farm.worker.main
    import router.process

    def check(settings: Settings, shard: int, descriptors: list[int]) -> int:
        try:
            router.process.check(settings)
            farm.worker.main.check(settings)
        except lifecycle.MENDABLE as error:
            lifecycle.tell_supervisor(descriptors[0], str(error))
            return 1
        return 0

    def run_router(settings: Settings, shard: int, descriptors: list[int]) -> int:
        return router.process.run(settings, socket.socket(fileno=descriptors[1]), descriptors[0])

    def run_worker(settings: Settings, shard: int, descriptors: list[int]) -> int:
        return farm.worker.main.run(settings, shard, socket.socket(fileno=descriptors[1]), descriptors[0])

    return {"check": check, "router": run_router, "worker": run_worker}


def _child(runners: dict[str, Runner], asked: dict[str, Any], settings: Settings, descriptors: list[int]) -> int:
    import setproctitle

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # but the others stay ignored: they are the supervisor's
    kind, shard = asked["spawn"], asked["shard"]
    setproctitle.setproctitle(f"farm: {kind}" if shard < 0 else f"farm: {kind} {shard}")
    try:
        return runners[kind](settings, shard, descriptors)
    except BaseException as error:
        lifecycle.tell_supervisor(descriptors[0], _in_one_line(error))
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
