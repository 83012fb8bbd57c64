"""`farm reload` and `farm drain` under SimplePush traffic."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
import trio
from support.farm_fixture import Farm, command, in_thread, running_farm, soon, until
from support.simplepush_traffic import SETTINGS, Traffic, under_traffic


@pytest.fixture(scope="module")
def draining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that takes two seconds to let its devices go."""
    with running_farm(tmp_path_factory.mktemp("draining") / "data", SETTINGS | {"drain.seconds": 2}) as farm:
        yield farm


def test_farm_reload(draining: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        before = await in_thread(draining.status)
        shards = [row["pid"] for row in before["workers"]]
        done: list[subprocess.CompletedProcess[str]] = []
        seen = []

        def replaced() -> bool:
            status = draining.status()
            seen.append([row["pid"] for row in status["workers"]])
            return not status["reloading"] and not set(seen[-1]) & set(shards)

        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                done.append(await in_thread(command, draining, "reload", "--data", str(draining.data)))

            nursery.start_soon(reload)
            await in_thread(until, replaced, "all processes are replaced")
        assert (done[0].returncode, done[0].stderr) == (0, "")
        assert done[0].stdout.startswith("reload: done after ")
        # One at a time: there was a moment with one new and one old.
        assert [pids for pids in seen if len(set(pids) & set(shards)) == 1]
        await in_thread(draining.wait_healthy)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()
        assert await in_thread(draining.router_pid) != before["routers"][0]["pid"]
        replacements = [event["name"] for event in draining.events("reload.replaced")]
        routers = [f"router[{number}]" for number in range(len(before["routers"]))]
        assert replacements == ["worker[0]", "worker[1]", *routers]
        assert not list(draining.events("process.died"))
        assert {connection.code for device in traffic.staying for connection in device.connections[:-1]} == {1001}
        # The fork server is a new one too; what is started from now on comes from there.
        os.kill(seen[-1][0], signal.SIGKILL)
        await in_thread(until, lambda: draining.worker_pid(0) not in (None, seen[-1][0]), "it is started again")
        await in_thread(draining.wait_healthy)

    under_traffic(draining, act)


def refuses(port: int) -> bool:
    """Whether there is no listener on this port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_farm_drain(draining: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        before = [len(device.connections) for device in traffic.staying]
        done: list[subprocess.CompletedProcess[str]] = []
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                done.append(await in_thread(command, draining, "drain", "--data", str(draining.data)))

            nursery.start_soon(drain)
            await in_thread(until, lambda: refuses(draining.device_port), "new connections are refused")
            code, body = await in_thread(draining.admin, "/health")
            assert (code, json.loads(body)["status"]) == (503, "draining")
        assert done[0].returncode == 0, done[0].stderr
        assert await in_thread(draining.wait_ended) == 0
        # It may take a moment until each has noticed; none can have come back.
        await soon(lambda: not any(device.online for device in traffic.staying), "all have been let go")
        assert [len(device.connections) for device in traffic.staying] == before
        ends = [device.connections[-1] for device in traffic.staying]
        assert {connection.code for connection in ends} == {1001}
        times = sorted(connection.ended for connection in ends)
        assert times[-1] - times[0] > 0.3 * draining.settings["drain.seconds"]
        await in_thread(draining.start)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()

    under_traffic(draining, act)
