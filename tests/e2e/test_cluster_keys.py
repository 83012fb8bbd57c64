"""The key that hosts have in common: it is replaced while devices are served, and without it nothing gets in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from copy import copy

import pytest
import zmq
from support import dialects
from support.farm_fixture import Farm, until
from support.hosts import Hosts, across, known, running_hosts

from router.common import curve, directory
from router.common import messages as m
from router.common.cluster_settings import split
from router.common.places import Place
from router.common.wire import NEWEST

OLD, NEW = curve.new_key(), curve.new_key()
STRANGERS = 300


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    with running_hosts(folder, 2, 2, dialects.settings(folder) | {"cluster.key": f"{OLD},{NEW}"}) as running:
        yield running


def served(farm: Farm) -> dict[str, str]:
    """Which key is served where, as this host knows it."""
    found = directory.read(farm.data)
    assert found is not None
    return {split(one.address)[0]: one.key for one in found.placements}


def test_it_is_replaced_host_by_host_while_devices_of_both_are_served(hosts: Hosts) -> None:
    a, b = hosts.each
    old, new = (curve.parse(key)[0].id for key in (OLD, NEW))
    with dialects.reached(across(devices=a, app_servers=b)) as check_a:
        check_a()
        b.stop()
        b.settings |= {"cluster.key": f"{NEW},{OLD}"}
        b.start()
        hosts.wait_divided()
        # a serves the old one, and b the new one.
        until(lambda: served(a) == served(b) == {"127.0.0.2": old, "127.0.0.3": new}, "both keys are served")
        check_a()
        with dialects.reached(across(devices=b, app_servers=a)) as check_b:
            check_b()
    for farm in (a, b):
        assert not [*farm.events("link.key_unknown")]
        assert not [*farm.events("link.stranger")]


def test_a_host_with_another_key_does_not_start(hosts: Hosts) -> None:
    a, _ = hosts.each
    other = copy(a)
    other.data = a.data.parent / "x"
    other.log_file = a.data.parent / "x.log"
    other.device_port = other.router_port = other.admin_port = 0
    bind = a.settings["cluster.bind"].replace("127.0.0.2", "127.0.0.9")
    other.settings = a.settings | {"cluster.name": "x", "cluster.bind": bind, "cluster.key": curve.new_key()}
    other.launch()
    assert other.wait_ended() == 2
    (failed,) = other.events("farm.start_failed")
    assert "cluster.key" in failed["why"]
    assert set(known(a)) == {"a", "b"}


def test_strangers_get_nothing_and_disturb_nobody(hosts: Hosts) -> None:
    a, b = hosts.each
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ports = [
        (split(a.settings["cluster.bind"])[0], split(a.settings["cluster.bind"])[1] + number) for number in range(4)
    ]
    ports += [("127.0.0.3", port) for _, port in ports]
    strangers: list[socket.socket] = []
    clients: list[zmq.Socket[bytes]] = []
    listening = []
    for where in ports:
        try:
            socket.create_connection(where, timeout=5).close()
        except OSError:
            continue
        listening.append(where)
        for key in (None, curve.derive(b"x" * 32)):
            client = context.socket(zmq.DEALER)
            Place(f"tcp://{where[0]}:{where[1]}", key, 2.0).connect(client)
            client.send(NEWEST.encode(m.AskStatus(1)))
            clients.append(client)
        for number in range(STRANGERS):
            stranger = socket.create_connection(where, timeout=5)
            stranger.sendall((b"GET / HTTP/1.1\r\n\r\n", b"\xff", b"")[number % 3])
            strangers.append(stranger)
    assert len(listening) == 4  # a router a host, and two ports a router
    with dialects.reached(across(devices=a, app_servers=b)) as check:
        check()
    for farm in (a, b):
        until(lambda farm=farm: [*farm.events("link.stranger")], "strangers are logged")
        assert farm.healthy()
    assert not any(client.poll(0) for client in clients)
    for stranger in strangers:
        stranger.close()
    context.destroy(linger=0)
