"""SimplePush on servers that Sentinels watch: the primary is lost, and nothing that was accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.farm_fixture import Farm, running_farm, until
from support.redis_sentinels import Sentinels
from support.redis_servers import PRODUCTS
from support.simplepush import Device, put


def well(farm: Farm) -> bool:
    return all(row["store_ok"] is True for row in farm.status()["routers"])


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_primary_is_lost_and_nothing_that_was_accepted(product: str, tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    sentinels = Sentinels(product, tmp_path / "servers")
    try:
        options = sentinels.options | {"sentinels": ",".join(sentinels.options["sentinels"]), "timeout": 3}
        settings = {"store.kind": "redis"} | {f"redis.{name}": value for name, value in options.items()}
        with running_farm(tmp_path / "data", settings, 1) as farm:
            router = farm.router_pid()
            _over_a_failover(farm, sentinels)
            assert farm.router_pid() == router
            (opened,) = farm.events("store.opened")
            assert "of a replica" in opened["promise"]
    finally:
        sentinels.stop()


def _over_a_failover(farm: Farm, sentinels: Sentinels) -> None:
    with Device(farm) as stays, Device(farm) as away:
        stays.hello()
        channel, endpoint = stays.register()
        away.hello()
        waiting, waiting_endpoint = away.register()
        away.socket.close()
        until(lambda: put(waiting_endpoint, 5) == 202, "the device is known to have gone")
        assert put(endpoint, 1) == 200
        assert stays.updates() == [(channel, 1)]
        killed = sentinels.fail_over()
        # The new primary has no replica yet, so nothing may be accepted.
        assert put(endpoint, 2) == 503
        sentinels.bring_back(killed)
        until(lambda: well(farm), "the farm finds the new primary by itself")
        until(lambda: put(endpoint, 100) == 200, "it accepts again")
        until(lambda: stays.updates() == [(channel, 100)], "the device has stayed, and hears of it")
    with Device(farm) as back:
        back.hello(away.uaid, (waiting,))
        assert back.updates() == [(waiting, 5)]
