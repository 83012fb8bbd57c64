"""A backup of a farm, made while it is pushed to, and put back into another data folder.

The farm has begun on the file of an earlier release with one router (`tests/data/store-schema-2.sqlite3.gz`, made by a
farm of that release; its times were set so that nothing of it expires).
"""

from __future__ import annotations

import gzip
import shutil
import threading
from pathlib import Path
from typing import Final

from support.farm_command import Farm as FarmCommand
from support.farm_fixture import Farm, command, running_farm, until
from support.simplepush import Device, push_many, put

EARLIER: Final = Path(__file__).parents[1] / "data" / "store-schema-2.sqlite3.gz"
ITS_KEY: Final = "A" * 43
ITS_DEVICE: Final = (
    "30e3ebdb47c6474c9f5a4063228eee83",
    "35eacab1-89d2-44d5-8bab-8bf8e42408cc",
    "/update/DrUE6ZVygZCvzFUC7HD260cjhgWLhCxJSIujJSXX4990DCQLEO9oJUPZR67x8n5pHlhwv3lBawEr4j7RfDVZ"
    "-kjvgUBq-LdilD8U80ctxNfW",
)
"""Its uaid, its channel and the path of its endpoint. Version 7 waits."""


def of_earlier_release(data: Path) -> None:
    """Make its data folder."""
    data.mkdir(0o700)
    for name, content in (("token.key", ITS_KEY.encode()), ("store.sqlite3", gzip.decompress(EARLIER.read_bytes()))):
        (data / name).touch(0o600)
        (data / name).write_bytes(content)


def stored(farm: Farm) -> tuple[str, str, str]:
    """A device that is away, with a message that waits. Returns: uaid, channel, endpoint."""
    with Device(farm) as device:
        uaid = device.hello()["uaid"]
        channel, endpoint = device.register()
    until(lambda: put(endpoint, 1) == 202, "the device has gone")
    return uaid, channel, endpoint


def test_what_was_stored_before_a_backup_is_delivered_by_the_farm_that_it_is_put_back_into(tmp_path: Path) -> None:
    backup, again = tmp_path / "backup.tar", tmp_path / "again"
    of_earlier_release(tmp_path / "data")
    with running_farm(tmp_path / "data", {"router.routers": 2}, workers=1) as farm:
        waiting = [stored(farm) for _ in range(2)]
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
        for uaid, channel, version in (*((uaid, channel, 1) for uaid, channel, _ in waiting), (*ITS_DEVICE[:2], 7)):
            with Device(farm) as device:
                assert device.hello(uaid)["uaid"] == uaid
                assert device.updates() == [(channel, version)]
                device.ack((channel, version))
                device.settle()
        # Endpoints that were given out before go on working.
        for path in ("/update/" + waiting[0][2].partition("/update/")[2], ITS_DEVICE[2]):
            assert put(farm.url(path), 8) == 202
        farm.kill()
