"""A farm of an older release is upgraded, and goes back, while its devices are pushed to."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import releases
from support.farm_fixture import ROOT, Farm, in_thread, reload, running, soon
from support.installed import cannot
from support.simplepush_traffic import SETTINGS, Traffic, under_traffic

ROUTERS = 2


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return releases.of_commit(releases.OLDER, tmp_path_factory.mktemp("older"))
    except releases.NoHistoryError as error:
        if error.to_be_expected:
            pytest.skip(str(error))
        cannot(str(error))


def test_an_older_release_is_upgraded_by_a_reload_and_comes_back_by_another(older: Path, tmp_path: Path) -> None:
    """Its supervisor stays what it was. Meanwhile workers and routers of both are on the links."""
    place = releases.Place(tmp_path / "code")
    place.put(older)
    farm = Farm(tmp_path / "data", SETTINGS | {"router.routers": ROUTERS}, workers=1, root=place.path)
    replaced = ["worker[0]", *(f"router[{number}]" for number in range(ROUTERS))]

    async def act(traffic: Traffic) -> None:
        for tree in (ROOT, older):
            place.put(tree)
            await in_thread(reload, farm)
            await in_thread(farm.wait_healthy)
            await soon(traffic.everybody_is_back, "all are back")
            await traffic.pushes_arrive()
        assert [event["name"] for event in farm.events("reload.replaced")] == 2 * replaced
        assert {connection.code for device in traffic.staying for connection in device.connections[:-1]} == {1001}
        for event in ("process.died", "link.not_understood", "link.failed", "link.versions_differ"):
            assert not list(farm.events(event))

    with running(farm):
        under_traffic(farm, act)
