"""SimplePush over several hosts: what was accepted outlives a host, and app servers do not notice that routers move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import trio
from support.admin_api import api, code
from support.farm_fixture import Farm, Raw, in_thread, until
from support.hosts import Hosts, placed, running_hosts
from support.simplepush import Device

from router.common.partitions import fixed_owners, partition

ROUTERS = 4
OWNERS = fixed_owners(ROUTERS)
SETTINGS = {"link.forward_timeout": 30}  # so that no request gives up before another router is there
versions = count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with running_hosts(tmp_path_factory.mktemp("hosts"), 2, ROUTERS, SETTINGS) as hosts:
        yield hosts


@pytest.fixture
def hosts(shared: Hosts) -> Hosts:
    """The shared hosts, well again."""
    shared.wait_divided()
    return shared


class Known(Device):
    """A device with a channel."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm)
        self.hello()
        self.channel, self.endpoint = self.register()
        self.owner = OWNERS[partition(UUID(self.uaid).bytes)]


def one_of_each(farm: Farm, stack: ExitStack) -> list[Known]:
    """A device of each router, by its number."""
    found: dict[int, Known] = {}
    while len(found) < ROUTERS:
        device = stack.enter_context(Known(farm))
        found.setdefault(device.owner, device)
    return [found[number] for number in range(ROUTERS)]


def push(farm: Farm, endpoint: str, version: int) -> int:
    """Over a connection of its own, to this host. Returns: status."""
    body = b"version=%d" % version
    head = f"PUT {urlsplit(endpoint).path} HTTP/1.1\r\nHost: push\r\nContent-Length: {len(body)}\r\n\r\n"
    with Raw(farm.router_port) as raw:
        raw.send(head.encode() + body)
        (answer,) = raw.answers(1)
    return answer.status


def test_any_host_sees_and_acts_on_any_device(hosts: Hosts) -> None:
    """Whatever router owns it, and whatever host holds it."""
    a, b = hosts.each
    with ExitStack() as stack:
        for device in one_of_each(a, stack):
            path = f"/devices/{device.uaid}"
            _, shown = api(b, "GET", path)
            assert (shown["connection"]["host"], shown["connection"]["address"]) == ("a", "127.0.0.1")
            pushed = api(b, "POST", f"{path}/push", {"channel": device.channel})
            assert pushed[1]["status"] == 200 and device.updates()
            assert api(b, "DELETE", f"{path}/inbox") == (200, {"removed": 1})
            assert api(b, "DELETE", path) == (200, {"forgotten": True})
            assert device.close_code() == 1001
            assert code(api(a, "GET", path)) == (404, "not_found")
        kept = stack.enter_context(Known(b))
        for asked in hosts.each:
            _, found = api(asked, "GET", "/devices?address=127.0.0.1")
            assert [row["host"] for row in found["devices"] if row["uaid"] == kept.uaid] == ["b"] and not found["more"]


def test_what_was_accepted_outlives_a_host_that_is_killed(hosts: Hosts) -> None:
    """Its devices come back to another one, and those of the other one have noticed nothing."""
    a, b = hosts.each
    with ExitStack() as stack:
        there = one_of_each(b, stack)
        here = one_of_each(a, stack)
        away = one_of_each(b, stack)
        for device in away:
            device.socket.close()
        until(lambda: [push(b, device.endpoint, 1) for device in away] == [202] * ROUTERS, "they have gone")
        assert [push(b, device.endpoint, 1) for device in there] == [200] * ROUTERS  # and nothing is acknowledged
        b.kill()
        hosts.wait_divided(a)
        for device in (*there, *away):
            with Device(a) as again:
                again.hello(device.uaid, (device.channel,))
                assert again.updates() == [(device.channel, 1)]
                again.ack((device.channel, 1))
        for device in here:
            until(lambda device=device: push(a, device.endpoint, 2) == 200, "it is there")  # type: ignore[misc]
            assert device.updates() == [(device.channel, 2)]
        b.start()


def test_app_servers_do_not_notice_that_routers_move(hosts: Hosts) -> None:
    """To a host that leaves in good order, and comes back."""
    a, b = hosts.each
    with ExitStack() as stack:
        devices = one_of_each(a, stack)
        answers: list[int] = []

        async def moving(change: Callable[[], None], *among: Farm) -> None:
            async with trio.open_nursery() as nursery:

                async def go_on() -> None:
                    while True:
                        for device in devices:
                            answers.append(await in_thread(push, a, device.endpoint, next(versions)))

                nursery.start_soon(go_on)
                await in_thread(change)
                await in_thread(hosts.wait_divided, *among)
                nursery.cancel_scope.cancel()

        its = placed(b)
        trio.run(moving, b.stop, a)
        assert {event["number"] for event in a.events("cluster.router_here")} >= set(its)
        trio.run(moving, b.start)
        assert len(answers) >= len(devices)
        assert set(answers) <= {200, 202}  # stored, where its worker has not said yet that the device is there
        for device in devices:
            version = next(versions)
            assert push(a, device.endpoint, version) in (200, 202)
            while device.updates()[-1] != (device.channel, version):
                pass
