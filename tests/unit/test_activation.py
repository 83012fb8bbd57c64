"""Sockets that a service manager hands over: which are ours, by which names, and where they listen."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from farm.supervisor.activation import ActivationError, GivenSockets, names
from farm.supervisor.listeners import Listeners
from router.common.settings import Listen

PID = 17
FIRST = 700  # those from 3 on are the test's own
DEVICES = "listen.device_port"


def given(names: str, *sockets: socket.socket) -> GivenSockets:
    """As a process gets them that is started with these."""
    for at, each in enumerate(sockets):
        os.dup2(each.fileno(), FIRST + at)
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}
    found = GivenSockets(environ, FIRST)
    assert not environ
    return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def server(stack: ExitStack, host: str = "127.0.0.1", port: int = 0, reuse_port: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return stack.enter_context(socket.create_server((host, port), family=family, reuse_port=reuse_port))


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, []),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, []),
        ({"LISTEN_PID": "18", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, []),
        ({"LISTEN_PID": "17", "LISTEN_FDS": "0"}, []),
        ({"LISTEN_PID": "17"}, []),
        ({"LISTEN_PID": "17", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, ["a", "b"]),
    ],
)
def test_only_those_for_this_process_count(variables: dict[str, str], found: list[str]) -> None:
    assert names(variables, PID) == found


@pytest.mark.parametrize(
    "variables", [{"LISTEN_FDS": "x"}, {"LISTEN_FDS": "-1"}, {"LISTEN_FDS": "4097"}, {"LISTEN_FDS": "9" * 5000}]
)
def test_what_is_no_number_of_sockets_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(ActivationError, match=r"LISTEN_FDS is .* a number of sockets"):
        names({"LISTEN_PID": "17", "LISTEN_FDNAMES": "a"} | variables, PID)


@pytest.mark.parametrize("found", ["", "a", "a:b:c"])
def test_each_socket_needs_a_name(found: str) -> None:
    with pytest.raises(ActivationError, match="each needs one"):
        names({"LISTEN_PID": "17", "LISTEN_FDS": "2", "LISTEN_FDNAMES": found}, PID)


def test_the_sockets_of_a_port_are_taken_once_and_not_inherited(stack: ExitStack) -> None:
    first = server(stack, reuse_port=True)
    port = first.getsockname()[1]
    second = server(stack, port=port, reuse_port=True)
    sockets = given(f"{DEVICES}:{DEVICES}", first, second)
    found = [stack.enter_context(each) for each in sockets.take(DEVICES, "127.0.0.1", port, 2)]
    assert [os.fstat(each.fileno()).st_ino for each in found] == [
        os.fstat(each.fileno()).st_ino for each in (first, second)
    ]
    assert not [each for each in found if os.get_inheritable(each.fileno())]
    assert sockets.take(DEVICES, "127.0.0.1", port, 2) == []


def test_a_port_that_is_0_takes_any(stack: ExitStack) -> None:
    (found,) = given(DEVICES, server(stack)).take(DEVICES, "127.0.0.1", 0, 1)
    found.close()


def test_a_name_stands_for_a_hosts_address(stack: ExitStack) -> None:
    (found,) = given(DEVICES, server(stack)).take(DEVICES, "localhost", 0, 1)
    found.close()


@pytest.mark.parametrize(("host", "setting"), [("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "::"), ("::1", "127.0.0.1")])
def test_another_address_than_the_settings_have_is_an_error(stack: ExitStack, host: str, setting: str) -> None:
    sockets = given(DEVICES, server(stack, host))
    with pytest.raises(ActivationError, match=rf"{DEVICES}: .* listens on .*, and the settings say .*: change either"):
        sockets.take(DEVICES, setting, 0, 1)


def test_another_port_than_the_settings_have_is_an_error(stack: ExitStack) -> None:
    found = server(stack)
    port = found.getsockname()[1]
    with pytest.raises(ActivationError, match=rf"listens on 127.0.0.1:{port}, and the settings say 127.0.0.1:1:"):
        given(DEVICES, found).take(DEVICES, "127.0.0.1", 1, 1)


def test_sockets_on_several_ports_are_an_error(stack: ExitStack) -> None:
    with pytest.raises(ActivationError, match="change either"):
        given(f"{DEVICES}:{DEVICES}", server(stack), server(stack)).take(DEVICES, "127.0.0.1", 0, 2)


def test_every_address_is_that_of_ipv4_too(stack: ExitStack) -> None:
    alone = server(stack, "::")
    with pytest.raises(ActivationError, match="for IPv6 alone"):
        given(DEVICES, alone).take(DEVICES, "::", 0, 1)
    both = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    (found,) = given(DEVICES, both).take(DEVICES, "::", 0, 1)
    found.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_does_not_listen_is_an_error(stack: ExitStack, kind: socket.SocketKind) -> None:
    bound = stack.enter_context(socket.socket(type=kind))
    bound.bind(("127.0.0.1", 0))
    with pytest.raises(ActivationError, match="is no listening TCP socket"):
        given(DEVICES, bound)


def test_what_is_no_socket_is_an_error() -> None:
    with open(os.devnull) as file:
        os.dup2(file.fileno(), FIRST)
    with pytest.raises(ActivationError, match=f"descriptor {FIRST} cannot be used: "):
        GivenSockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": DEVICES}, FIRST)
    os.close(FIRST)


def options(device_port: int) -> Listen:
    return Listen(host="127.0.0.1", device_port=device_port, router_port=0, admin_port=0)


def test_the_farms_listeners_are_those_that_are_given(stack: ExitStack) -> None:
    device, further, admin = server(stack), server(stack), server(stack)
    sockets = given(f"one.port:{DEVICES}:listen.admin_port", further, device, admin)
    opened = Listeners(options(0), 1, 1, [("one.port", 0)], given=sockets)
    stack.callback(opened.close)
    ((here, other),) = opened.devices
    assert [each.getsockname() for each in (here, other, opened.admin)] == [
        each.getsockname() for each in (device, further, admin)
    ]


def test_a_name_of_no_port_is_an_error(stack: ExitStack) -> None:
    with pytest.raises(ActivationError, match=r"'farm\.socket', which is no port of this farm: .*listen.router_port"):
        Listeners(options(0), 1, 1, given=given("farm.socket", server(stack)))


def test_a_cluster_opens_its_router_port_itself(stack: ExitStack) -> None:
    sockets = given("listen.router_port", server(stack))
    with pytest.raises(ActivationError, match="in a cluster the router port is open only while a router is here"):
        Listeners(options(0), 1, 2, routers_move=True, given=sockets)
