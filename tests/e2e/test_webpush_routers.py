"""WebPush over several routers: app servers ask any of them about any device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.farm_fixture import Farm, running_farm
from support.webpush import UserAgent, away, error, post, pushed, request


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("farm") / "data", {"router.routers": 3}) as farm:
        yield farm


def forwards(farm: Farm) -> list[int]:
    """How often each router has asked another one."""
    return [row["forwards"] for row in farm.status()["routers"]]


def test_every_router_takes_everything_for_every_device(farm: Farm) -> None:
    """The kernel chooses the router of each request, and chance the owner: so until each has asked another one twenty
    times."""
    while min(forwards(farm)) < 20:
        with UserAgent(farm) as device:
            _, endpoint = device.register()
            other, unwanted = device.register()
            pushed(endpoint, "at once")
            (note,) = device.notes(1)
            device.ack(note)
            device.unregister(other)
            assert error(post(unwanted, "for none")) == (410, 106)
            away(farm, device)
        kept = [pushed(endpoint, text, **more) for text, more in (("1", {}), ("2", {"Topic": "t"}), ("3", {}))]
        pushed(endpoint, "4", Topic="t")
        assert request("DELETE", kept[0]).status == 204
        assert request("DELETE", kept[1]).status == 204  # it has been replaced
        with UserAgent(farm, device.uaid) as again:
            assert sorted(again.bodies(2)) == ["3", "4"]
            again.nothing()
    assert not sum(row["forwards_unreached"] for row in farm.status()["routers"])
