"""A farm whose disk reports errors: whatever fails is refused, nothing that was accepted is lost, and it passes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.eio import FailingDisk
from support.farm_fixture import Farm, running_farm, until
from support.installed import cannot
from support.simplepush import Device, put


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> FailingDisk:
    folder = tmp_path_factory.mktemp("disk")
    try:
        return FailingDisk(folder, folder / "data" / "store.sqlite3")
    except RuntimeError as error:
        cannot(str(error))


@pytest.fixture(scope="module")
def farm(disk: FailingDisk) -> Iterator[Farm]:
    data = Path(disk.environment["EIO_PREFIX"]).parent
    with running_farm(data, {"store.sweep_interval": 0.2, "router.routers": 1}, 1, disk.environment) as started:
        yield started


def well(farm: Farm) -> bool:
    return farm.status()["routers"][0]["store_ok"] is True


@pytest.mark.parametrize(
    ("calls", "error"),
    [
        (("write",), errno.EIO),
        (("sync",), errno.EIO),
        (("write", "truncate"), errno.ENOSPC),
        (("read", "write", "sync", "truncate"), errno.EIO),
        (("open", "write"), errno.EMFILE),
        (("write", "open"), errno.EROFS),
    ],
)
def test_an_error_of_the_disk_refuses_and_passes(
    farm: Farm, disk: FailingDisk, calls: tuple[str, ...], error: int
) -> None:
    router = farm.router_pid()
    with Device(farm) as away:
        away.hello()
        channel, endpoint = away.register()
    until(lambda: put(endpoint, 5) == 202, "the device is known to have gone")
    try:
        disk.fail(*calls, error=error)
        assert {put(endpoint, version) for version in range(6, 20)} == {503}
        until(lambda: not well(farm), "it says so")
    finally:
        disk.heal()
    until(lambda: well(farm), "it finds out by itself that it can write again")
    with Device(farm) as back:
        back.hello(away.uaid, (channel,))
        # None of those that were refused may have come before it, and what was accepted is there.
        (update,) = back.updates()
        assert update == (channel, 5)
        assert put(endpoint, 100) == 200
        assert back.updates() == [(channel, 100)]
    assert farm.router_pid() == router


def test_what_was_acknowledged_meanwhile_does_not_come_again(farm: Farm, disk: FailingDisk) -> None:
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        other, other_endpoint = device.register()
        assert put(endpoint, 5) == 200
        assert device.updates() == [(channel, 5)]
        try:
            disk.fail("write")
            assert put(other_endpoint, 1) == 503
            device.send({"messageType": "ack", "updates": [{"channelID": channel, "version": 5}]})
            assert put(other_endpoint, 2) == 503
        finally:
            disk.heal()
        until(lambda: well(farm), "it finds out by itself that it can write again")
        # Everything that the store still had to do is done before this.
        until(lambda: put(other_endpoint, 3) == 200, "it takes pushes")
        uaid = device.uaid
    with Device(farm) as back:
        back.hello(uaid, (channel, other))
        assert back.updates() == [(other, 3)]


def test_a_store_that_fails_for_long_and_at_the_end_too_is_stopped_in_good_order(
    farm: Farm, disk: FailingDisk, tmp_path: Path
) -> None:
    data = Path(disk.environment["EIO_PREFIX"]).parent
    other = FailingDisk(tmp_path, data.parent / "other" / "store.sqlite3")
    with running_farm(data.parent / "other", {"router.routers": 1}, 1, other.environment) as ending:
        with Device(ending) as device:
            device.hello()
            _, endpoint = device.register()
            assert put(endpoint, 1) == 200
            other.fail("write", "sync", "truncate")
            assert put(endpoint, 2) == 503
        ending.stop()  # with exit code 0
    assert farm.healthy()
