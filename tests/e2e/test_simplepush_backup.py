"""A backup that is made of a farm while it is pushed to, and put back into another data folder."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from support.farm_command import Farm as FarmCommand
from support.farm_fixture import Farm, command, running_farm, until
from support.simplepush import Device, push_many, put


def stored(farm: Farm) -> tuple[str, str, str]:
    """A device that is away, with a message that waits. Returns: uaid, channel, endpoint."""
    with Device(farm) as device:
        uaid = device.hello()["uaid"]
        channel, endpoint = device.register()
    until(lambda: put(endpoint, 1) == 202, "the device has gone")
    return uaid, channel, endpoint


def test_what_was_stored_before_a_backup_is_delivered_by_the_farm_that_it_is_put_back_into(tmp_path: Path) -> None:
    backup, again = tmp_path / "backup", tmp_path / "again"
    with running_farm(tmp_path / "data", {"router.routers": 2}, workers=1) as farm:
        waiting = [stored(farm) for _ in range(3)]
        _, _, busy = stored(farm)
        token = busy.rpartition("/")[2]
        pushed, done = [0], threading.Event()

        def push_on() -> None:
            while not done.is_set():
                rows = [{"token": token, "version": pushed[0] + n} for n in range(2, 34)]
                assert set(push_many(farm, rows)) == {202}
                pushed[0] += 32

        thread = threading.Thread(target=push_on)
        thread.start()
        try:
            until(lambda: pushed[0] > 0, "pushes go on")
            made = command(farm, "backup", str(backup), "--data", str(farm.data))
            before = pushed[0]
            until(lambda: pushed[0] > before, "pushes go on")
        finally:
            done.set()
            thread.join()
        assert made.returncode == 0 and made.stderr == "", made
        assert f"{backup}: 4 files" in made.stdout and "It holds the token key" in made.stdout
        farm.kill()
    shutil.rmtree(tmp_path / "data")
    restored = FarmCommand(tmp_path)("restore", str(backup), "--data", str(again))
    assert restored.returncode == 0 and "of router.routers=2" in restored.stdout, restored
    with running_farm(again, {"router.routers": 2}, workers=1) as farm:
        for uaid, channel, _ in waiting:
            with Device(farm) as device:
                assert device.hello(uaid)["uaid"] == uaid
                assert device.updates() == [(channel, 1)]
                device.ack((channel, 1))
                device.settle()
        # Endpoints that were given out before go on working.
        path = waiting[0][2].partition("/update/")[2]
        assert put(farm.url(f"/update/{path}"), 2) == 202
        farm.kill()
