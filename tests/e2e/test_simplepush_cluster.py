"""SimplePush on a cluster of Valkey: a primary is lost, others are served, and nothing accepted is missing."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from pathlib import Path

import trio
from support.farm_fixture import Farm, running_farm, until
from support.redis_cluster import Cluster
from support.simplepush import Device, put

from router.common.partitions import partition
from router.common.redis_settings import RedisOptions
from router.store.redis_cluster import Topology

DEVICES = 12


def test_a_primary_is_lost_and_others_are_served(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    cluster = Cluster("valkey", tmp_path / "servers")
    try:
        redis = {"url": cluster.servers[0].url, "cluster": True, "replicas": 1, "timeout": 4}
        settings = {"store.kind": "redis"} | {f"redis.{name}": value for name, value in redis.items()}
        topology = Topology(RedisOptions(**redis))
        trio.run(topology.refresh)
        with running_farm(tmp_path / "data", settings, 1) as farm:
            router = farm.router_pid()
            _over_a_failover(farm, cluster, topology)
            assert farm.router_pid() == router
    finally:
        cluster.stop()


def _over_a_failover(farm: Farm, cluster: Cluster, topology: Topology) -> None:
    with ExitStack() as stack:
        devices = []
        for _ in range(DEVICES):
            device = stack.enter_context(Device(farm))
            device.hello()
            devices.append((device, *device.register()))
        accepted = {}
        for device, channel, endpoint in devices:
            assert put(endpoint, 1) == 200
            assert device.updates() == [(channel, 1)]
            accepted[channel] = 1
        primary = cluster.primaries[0]
        its = {
            channel
            for device, channel, _ in devices
            if topology.primaries[partition(uuid.UUID(device.uaid).bytes)].port == primary.port
        }
        assert its < set(accepted)
        cluster.fail_over(primary)
        for _, channel, endpoint in devices:
            # Its replica is the primary by now, and has none: the others are as before.
            status = put(endpoint, 2)
            if channel not in its:
                until(lambda endpoint=endpoint: put(endpoint, 3) == 200, "the others are accepted")  # type: ignore[misc]
                accepted[channel] = 3
            else:
                assert status == 503
        primary.start()
        until(cluster.is_well, "the cluster is well", 60)
        for device, channel, endpoint in devices:
            until(lambda endpoint=endpoint: put(endpoint, 9) == 200, "all are accepted")  # type: ignore[misc]
            until(lambda device=device, channel=channel: device.updates() == [(channel, 9)], "it comes")  # type: ignore[misc]
