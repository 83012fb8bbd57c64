"""A farm whose disk reports errors: whatever fails is refused, nothing that was accepted is lost, and it passes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from eio import FailingDisk
from farm_fixture import Device, Farm, put, running_farm, until


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> FailingDisk:
    folder = tmp_path_factory.mktemp("disk")
    try:
        return FailingDisk(folder, folder / "data" / "store.sqlite3")
    except RuntimeError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def farm(disk: FailingDisk) -> Iterator[Farm]:
    data = Path(disk.environment["EIO_PREFIX"]).parent
    with running_farm(data, {"store.sweep_interval": 0.2}, 1, disk.environment) as started:
        yield started


def well(farm: Farm) -> bool:
    return farm.status()["router"]["store_ok"] is True


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
