"""SimplePush over several routers: each pushes to every device, and one that dies, stands still or is replaced is
missed by its own devices alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from support.farm_fixture import Farm, Json, Raw, running_farm, until
from support.processes import stopped
from support.several_routers import connected, pids
from support.simplepush import Device

from router.common.partitions import fixed_owners, partition

ROUTERS = 2
SETTINGS: Json = {
    "router.routers": ROUTERS,
    "farm.hang_timeout": 2,
    "link.lease": 2,
    "link.heartbeat": 0.1,
    "link.forward_timeout": 20,  # so that no request gives up before another router is there
}
OWNERS = fixed_owners(ROUTERS)
versions = count(1)


class Reachable(Device):
    """A device with a channel."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm)
        self.hello()
        self.channel, self.endpoint = self.register()
        self.owner = OWNERS[partition(UUID(self.uaid).bytes)]

    def gets(self, version: int) -> None:
        """Read notifications up to this version, and acknowledge."""
        until(lambda: (self.channel, version) in self.updates(), "it comes")
        self.ack((self.channel, version))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("routers") / "data", SETTINGS) as farm:
        yield farm


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """The shared farm, well again."""
    shared.wait_healthy()
    return shared


@contextmanager
def reachable(farm: Farm) -> Iterator[list[Reachable]]:
    """A device of each router, by its number."""
    found: dict[int, Reachable] = {}
    with ExitStack() as stack:
        while len(found) < ROUTERS:
            device = Reachable(farm)
            stack.enter_context(device)
            found.setdefault(device.owner, device)
        yield [found[number] for number in range(ROUTERS)]


def send(raw: Raw, endpoint: str, version: int) -> None:
    """Begin a push over this connection."""
    body = b"version=%d" % version
    head = f"PUT {urlsplit(endpoint).path} HTTP/1.1\r\nHost: push\r\nContent-Length: {len(body)}\r\n\r\n"
    raw.send(head.encode() + body)


def push(raw: Raw, endpoint: str, version: int) -> int:
    """Push over this connection. Returns: status."""
    send(raw, endpoint, version)
    (answer,) = raw.answers(1)
    return answer.status


def pushed(raw: Raw, device: Reachable) -> None:
    """A push over this connection, which reaches this device at once."""
    version = next(versions)
    assert push(raw, device.endpoint, version) == 200
    device.gets(version)


def test_each_router_pushes_to_every_device(farm: Farm) -> None:
    with reachable(farm) as devices, connected(farm) as connections:
        for raw in connections:
            for device in devices:
                pushed(raw, device)


def test_the_lines_of_a_request_go_each_to_its_owner(farm: Farm) -> None:
    with reachable(farm) as devices, connected(farm) as connections:
        for raw in connections:
            version = next(versions)
            lines = [json.dumps({"endpoint": device.endpoint, "version": version}) for device in devices]
            body = "\n".join([*lines, '{"token":"none"}']).encode()
            raw.send(b"POST /v1/push HTTP/1.1\r\nHost: push\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            (answer,) = raw.answers(1)
            assert [json.loads(line)["status"] for line in answer.body.splitlines()] == [200, 200, 404]
            for device in devices:
                device.gets(version)


def test_a_version_that_is_not_named_is_the_next_one_whichever_router_is_asked(farm: Farm) -> None:
    with reachable(farm) as (_, device), connected(farm) as connections:
        given = []
        for raw in (*connections, *connections):
            raw.send(
                f"PUT {urlsplit(device.endpoint).path} HTTP/1.1\r\nHost: push\r\nContent-Length: 0\r\n\r\n".encode()
            )
            (answer,) = raw.answers(1)
            assert answer.status == 200
            ((_, version),) = device.updates()
            device.ack((device.channel, version))
            given.append(version)
        assert given == sorted(given)
        assert given[0] > 10**9  # unix seconds


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_missing_is_missed_by_its_own_devices_alone(farm: Farm, how: signal.Signals) -> None:
    before = pids(farm)
    with (
        reachable(farm) as (own, other),
        connected(farm) as (raw, _),
        connected(farm) as (waiting, _),
    ):
        os.kill(before[1], how)

        def missed() -> bool:
            row = farm.status()["routers"][1]
            return row["state"] != "up" or row["pid"] != before[1]

        until(missed, "it is missed, or another one is there already")
        version = next(versions)
        send(waiting, other.endpoint, version)

        def replaced() -> bool:
            pushed(raw, own)
            return farm.healthy()

        until(replaced, "there is another router")
        assert pids(farm)[0] == before[0]
        pushed(raw, own)
        (answer,) = waiting.answers(1)
        if answer.status != 503:
            assert answer.status in (200, 202)
            other.gets(version)
        pushed(raw, other)


def test_of_a_reload_app_servers_notice_a_short_wait(farm: Farm) -> None:
    with reachable(farm) as devices:
        endpoints = [device.endpoint for device in devices]
    before = pids(farm)
    os.kill(farm.pid, signal.SIGHUP)
    answers: list[int] = []
    while before[-1] in pids(farm) or farm.status()["reloading"]:
        for endpoint in endpoints:
            with Raw(farm.router_port) as raw:
                answers.append(push(raw, endpoint, next(versions)))
    assert set(answers) == {202}
    assert not set(before) & set(pids(farm))


def test_of_the_end_no_request_notices_that_its_router_needs_another(tmp_path: Path) -> None:
    """The owner cannot answer before all routers have been told to end."""
    with running_farm(tmp_path / "data", SETTINGS | {"farm.hang_timeout": 60}) as farm, connected(farm) as (raw, _):
        with reachable(farm) as (_, device):
            endpoint = device.endpoint
        until(lambda: sum(row["devices"] for row in farm.status()["workers"]) == 0, "it has gone")
        with stopped(pids(farm)[1]):
            send(raw, endpoint, next(versions))
            os.kill(farm.pid, signal.SIGTERM)
            until(lambda: farm.status()["drain"]["phase"] == "routers", "the workers have gone")
        (answer,) = raw.answers(1)
        assert answer.status == 202
        assert farm.wait_ended() == 0
