"""The ports that a farm listens on: the device port and those of dialects, one listener of each for each worker."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from support.common import deaf_port, settings_with

import farm.dialects
from farm.dialects import DeviceSide, Dialect, FurtherListener, further_listeners, further_ports
from farm.supervisor.listeners import Listeners
from farm.transports import HTTP
from farm.worker.main import matched
from router.common.listener import ListenError
from router.common.options import Section, Settings, option
from router.common.settings import EndpointOptions, Listen
from router.common.tls_settings import TlsOptions
from router.dialects import DialectSpec

OPTIONS = Listen(host="127.0.0.1", device_port=0, router_port=0, admin_port=0)


@pytest.fixture
def free() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def listeners(free: int) -> Iterator[Listeners]:
    opened = Listeners(OPTIONS, 3, 2, [("one.port", free)])
    yield opened
    opened.close()


def test_each_worker_has_a_listener_of_each_port(listeners: Listeners, free: int) -> None:
    device_port = listeners.devices[0][0].getsockname()[1]
    assert [[one.getsockname()[1] for one in each] for each in listeners.devices] == [[device_port, free]] * 3
    settings = listeners.with_ports(settings_with((Listen, {"device_port": 0})))
    assert settings.get(Listen).device_port == device_port


def test_each_router_has_a_listener_of_the_router_port(listeners: Listeners) -> None:
    (port,) = {listener.getsockname()[1] for (listener,) in listeners.routers}
    assert len(listeners.routers) == 2
    assert listeners.with_ports(settings_with((Listen, {"router_port": 0}))).get(Listen).router_port == port


def test_endpoints_are_asked_with_tls_where_the_router_port_speaks_it(listeners: Listeners) -> None:
    for switch, scheme in (("on", "https"), ("off", "http")):
        given = settings_with((Listen, {"host": "127.0.0.1"}), (TlsOptions, {"router": switch}))
        settings = listeners.with_ports(given)
        assert settings.get(EndpointOptions).url.startswith(f"{scheme}://127.0.0.1:")


def test_routers_that_move_accept_from_one_listener_while_one_is_here(free: int) -> None:
    options = replace(OPTIONS, router_port=free)
    opened = Listeners(options, 1, 3, routers_move=True)
    try:
        assert len({listener for each in opened.routers for listener in each}) == 1
        socket.create_connection(("127.0.0.1", free)).close()
        opened.shut_routers()
        assert opened.routers == [[], [], []]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free))
        assert opened.with_ports(settings_with()).get(Listen).router_port == free
        opened.open_routers(options)
        opened.open_routers(options)
        assert len({listener for each in opened.routers for listener in each}) == 1
        socket.create_connection(("127.0.0.1", free)).close()
    finally:
        opened.close()


def test_a_port_that_is_taken_is_said_with_its_setting_and_nothing_stays_open() -> None:
    with deaf_port() as taken, pytest.raises(ListenError, match=f"one.port: .* port {taken}"):
        Listeners(OPTIONS, 2, 2, [("one.port", taken)])


def test_a_worker_knows_a_listener_by_its_port(listeners: Listeners, free: int) -> None:
    wanted = [FurtherListener(f"x.{port}", lambda _, port=port: port, HTTP) for port in (free + 1, free)]  # type: ignore[misc]
    found = matched(listeners.devices[1][1:], wanted, settings_with())
    assert found == [(wanted[0], None), (wanted[1], listeners.devices[1][1])]


@dataclass(frozen=True)
class One(Section):
    SECTION: ClassVar[str] = "one"
    port: int = option(0, "a port", ge=0)


@pytest.mark.parametrize(("on", "port", "wanted"), [(True, 7000, True), (True, 0, False), (False, 7000, False)])
def test_a_port_is_wanted_where_its_dialect_is_on_and_it_is_set(
    monkeypatch: pytest.MonkeyPatch, on: bool, port: int, wanted: bool
) -> None:
    listener = FurtherListener("one.port", lambda settings: settings.get(One).port, HTTP)
    side = DeviceSide(spec=DialectSpec(name="one", on=on), make=lambda _: Dialect(), listeners=(listener,))
    monkeypatch.setattr(farm.dialects, "sides", lambda: [side])
    settings = Settings((One(port),))
    assert further_listeners(settings) == [listener] * wanted
    assert further_ports(settings) == [("one.port", port)] * wanted
