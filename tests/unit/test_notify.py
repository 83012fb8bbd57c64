"""What systemd is told: the form of its datagrams, which of them follows what happens, and a socket that is full."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from farm.supervisor.notify import (
    REPORT_S,
    BadAddress,
    Notifier,
    States,
    datagram,
    socket_address,
    summary,
    watchdog_interval,
)

EXTEND = b"EXTEND_TIMEOUT_USEC=30000000"


def status(**changes: Any) -> dict[str, Any]:
    """Of a farm in which everything serves."""
    rows = [{"state": "up"}, {"state": "up"}]
    found = {"status": "ok", "connections": 3, "drain": None, "last_reload": None, "down": []}
    return found | {"workers": rows, "routers": rows[:1]} | changes


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("/run/systemd/notify", b"/run/systemd/notify"),
        ("@farm", b"\0farm"),
        ("/" + "n" * 106, b"/" + b"n" * 106),
        ("@" + "n" * 106, b"\0" + b"n" * 106),
    ],
)
def test_the_socket_is_a_path_or_abstract(variable: str, address: bytes) -> None:
    assert socket_address(variable) == address


@pytest.mark.parametrize("variable", ["run/notify", "/", "@", "vsock:2:1234", "/" + "n" * 107])
def test_another_socket_is_refused(variable: str) -> None:
    with pytest.raises(BadAddress):
        socket_address(variable)


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_signs_of_life_are_given_twice_in_the_time(environ: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval(environ, pid=7) == interval


def test_a_value_never_breaks_its_line() -> None:
    assert datagram(STATUS="a\nREADY=1\r\0b", READY=1) == b"STATUS=a READY=1  b\nREADY=1"
    assert datagram(STATUS="\udcff") == b"STATUS= "
    assert datagram(STATUS="x" * 1000) == b"STATUS=" + b"x" * 397 + b"..."
    assert datagram() == b""


def test_the_line_says_what_an_operator_looks_for_first() -> None:
    up = "3 devices, 2 of 2 workers and 1 of 1 routers serve"
    assert summary(status()) == f"ok: {up}"
    one = [{"state": "up"}, {"state": "down"}]
    assert summary(status(status="degraded", workers=one, down=["worker 1"])) == (
        "degraded: 3 devices, 1 of 2 workers and 1 of 1 routers serve; not up: worker 1"
    )
    running = {"outcome": "running", "why": "", "step": "worker 1"}
    assert summary(status(last_reload=running)) == f"ok: {up}; reloading (worker 1)"
    refused = {"outcome": "refused", "why": "listen.host: no"}
    assert summary(status(last_reload=refused)) == f"ok: {up}; last reload refused: listen.host: no"
    assert summary(status(last_reload={"outcome": "done", "why": ""})) == f"ok: {up}"
    drain = {"phase": "devices", "remaining_seconds": 8.4}
    assert summary(status(status="draining", drain=drain)) == "draining (devices): 3 devices left, 8 s at most"


def test_a_life_from_start_to_end() -> None:
    states = States(7)
    assert states.status("starting") == b"STATUS=starting\n" + EXTEND
    assert states.status("starting") == EXTEND  # systemd goes on waiting
    assert states.reloading(1.0) == states.reloaded() == b""  # for READY=1 would say that it serves
    assert states.ready() == b"READY=1\nMAINPID=7"
    assert states.ready() == b""
    assert states.status("ok") == b"STATUS=ok"
    assert states.status("ok") == b""
    assert states.reloading(1.5) == b"RELOADING=1\nMONOTONIC_USEC=1500000\n" + EXTEND
    assert states.status("ok") == EXTEND
    assert states.reloading(2.5) == b"RELOADING=1\nMONOTONIC_USEC=2500000\n" + EXTEND  # asked for once more
    assert states.reloaded() == b"READY=1"
    assert states.reloaded() == states.status("ok") == b""
    assert states.stopping() == b"STOPPING=1\n" + EXTEND
    assert states.status("draining") == b"STATUS=draining\n" + EXTEND
    assert states.stopping() == states.reloading(3.0) == states.ready() == b""


def test_a_reload_that_the_end_cuts_short_does_not_end_in_ready() -> None:
    states = States(7)
    states.ready()
    states.reloading(1.0)
    states.stopping()
    assert states.reloaded() == b""


def test_why_it_did_not_start_stays_the_status() -> None:
    states = States(7)
    assert states.stopping("store: no") == b"STOPPING=1\n" + EXTEND + b"\nSTATUS=failed: store: no"
    assert states.status("draining") == EXTEND
    assert states.ready() == b""


async def ok() -> dict[str, Any]:
    return status()


def test_without_a_service_manager_nothing_runs() -> None:
    environ = {"HOME": "/", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environ)
    assert environ == {"HOME": "/"}
    assert notifier.tasks(ok) == []
    notifier.ready()
    notifier.stopping()


def test_a_socket_that_is_no_more_is_no_error(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    assert [name for name, _ in notifier.tasks(ok)] == ["notify"]
    assert Notifier({"NOTIFY_SOCKET": "nowhere"}).tasks(ok) == []


def test_what_a_full_socket_does_not_take_is_sent_later_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    received = []

    async def main(manager: socket.socket, others: int) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"})
        notifier.ready()
        notifier.reloading()
        async with trio.open_nursery() as nursery:
            for _, task in notifier.tasks(ok):
                nursery.start_soon(task)
            await trio.sleep(100 * REPORT_S)
            received.extend(manager.recv(1000) for _ in range(others))
            for _ in range(int(3 * REPORT_S)):
                await trio.sleep(1)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        received.append(manager.recv(1000))
            nursery.cancel_scope.cancel()

    with full_socket(path) as (manager, sent):
        trio.run(main, manager, len(sent), clock=trio.testing.MockClock(autojump_threshold=0))
    assert sent
    assert received[: len(sent)] == sent
    ready, reloading, *later = received[len(sent) :]
    assert ready.startswith(b"READY=1\n")
    assert reloading.startswith(b"RELOADING=1\n")
    status_line = b"STATUS=ok: 3 devices, 2 of 2 workers and 1 of 1 routers serve\n" + EXTEND
    assert later.count(status_line) == 1
    assert set(later) == {status_line, EXTEND, b"WATCHDOG=1"}


def test_a_sign_of_life_that_was_due_while_the_socket_was_full_is_given_as_soon_as_it_is_not(tmp_path: Path) -> None:
    path, interval = str(tmp_path / "notify"), 20 * REPORT_S
    received = []

    async def main(manager: socket.socket, others: int) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(int(2e6 * interval))})
        notifier.ready()  # so something waits already
        async with trio.open_nursery() as nursery:
            for _, task in notifier.tasks(ok):
                nursery.start_soon(task)
            await trio.sleep(interval + 1)
            for _ in range(others):
                manager.recv(1000)
            await trio.sleep(REPORT_S + 1)
            with contextlib.suppress(BlockingIOError):
                while True:
                    received.append(manager.recv(1000))
            nursery.cancel_scope.cancel()

    with full_socket(path) as (manager, sent):
        trio.run(main, manager, len(sent), clock=trio.testing.MockClock(autojump_threshold=0))
    assert received.count(b"WATCHDOG=1") == 1


@contextlib.contextmanager
def full_socket(path: str) -> Iterator[tuple[socket.socket, list[bytes]]]:
    """A service manager that reads nothing yet, and what another one has sent it until it was full."""
    with plain_socket() as manager, plain_socket() as other:
        manager.bind(path)
        sent = []
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"X_OTHER=1", path)
                sent.append(b"X_OTHER=1")
        yield manager, sent


def plain_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
