"""gopush2's app servers against a whole farm: its configuration files, the admin key, a router that is killed, and what
is left of a channel that has expired."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from support.farm_fixture import PATIENCE_S, Farm, curl, running_farm, started, until
from support.gopush2 import CRASH, ON, Device, answered, create, new_key, push

ADMIN_KEY: Final = "very-s3cret"
SAMPLES: Final = Path(__file__).parents[1] / "data" / "gopush2"
NOBODY: Final = {"msg": "can't get a subscriber", "ret": 3}


class Moved(Farm):
    """A farm with a configuration file of gopush2; only its ports are others, because they have to be free."""

    sample = ""

    def arguments(self) -> list[str]:
        return [*super().arguments(), "--gopush2-config", str(SAMPLES / self.sample)]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker; app servers show a key."""
    settings = ON | {"gopush2.admin_key": ADMIN_KEY, "log.level": "debug"}
    with running_farm(tmp_path_factory.mktemp("gopush2") / "data", settings, workers=1) as running:
        yield running


# ---------------------------------------------------------------------- configuration files


def test_a_farm_in_the_place_of_the_first_version(tmp_path: Path) -> None:
    farm = Moved(tmp_path / "data", {"log.level": "info"})
    farm.sample = "first.conf"
    farm.start()
    try:
        base = f"http://127.0.0.1:{farm.device_port}"  # both sides are on one port, as in its README
        assert curl(f"{base}/ch?key=Terry-Mao&token=test").json() == {"msg": "ok", "ret": 0}
        assert curl(f"{base}/client").status == 200
        with Device(farm, "Terry-Mao", token="test", greets=False) as device:
            device.beat("")
            device.beat("")
            assert curl("-d", "test", f"{base}/pub?key=Terry-Mao&expire=30").json() == {"msg": "ok", "ret": 0}
            found = json.loads(device.text())
            assert (found["msg"], found["msg_id"]) == ("test", found["mid"])
            until(lambda: curl(f"{base}/stat?type=subscriber").json()["cur_conn"] == 1, "it counts")
        config = curl(f"{base}/stat?type=confit").json()
        assert config.items() >= {"message_expire_sec": 7200, "channel_expire_sec": 28800, "auth": 1}.items()
    finally:
        farm.stop() if farm in started else None


def test_a_farm_in_the_place_of_the_last_version(tmp_path: Path) -> None:
    farm = Moved(tmp_path / "data", {"log.level": "info"})
    farm.sample = "last.conf"
    farm.start()
    try:
        create(farm, "Terry-Mao", "test")
        with Device(farm, "Terry-Mao", token="test") as device:
            push(farm, "Terry-Mao", "hello", 7)
            assert (device.message(), device.mid) == ("hello", 7)
        assert curl(f"http://127.0.0.1:{farm.device_port}/client").status == 404
        assert curl(f"http://127.0.0.1:{farm.device_port}/ch?key=a&token=b").status == 404
    finally:
        farm.stop() if farm in started else None


# ---------------------------------------------------------------------- who may ask, and what is answered


def test_only_who_shows_the_key_is_answered_and_no_log_has_it(farm: Farm) -> None:
    key, token = new_key(), new_key()
    ch = farm.url(f"/ch?key={key}&token={token}")
    for more in ((), ("-H", "Authorization: Bearer wrong"), ("-H", f"X-Admin-Key: {ADMIN_KEY}")):
        refused = curl(*more, ch)
        assert refused.status == 403
        assert b"gopush2.admin_key" in refused.body
    assert curl(f"{ch}&admin_key={ADMIN_KEY}").json()["ret"] == 0
    bearer = ("-H", f"Authorization: Bearer {ADMIN_KEY}")
    assert curl(*bearer, "-d", "hello", farm.url(f"/pub?key={key}")).json()["ret"] == 0
    # What goes wrong with a request is logged without its query.
    for wrong in (f"/nothing?admin_key={ADMIN_KEY}", f"/pub?admin_key={ADMIN_KEY}", f"/ch%ff?admin_key={ADMIN_KEY}"):
        curl("-d", "x", farm.url(wrong))
    with Device(farm, key, token=token) as device:
        assert device.message() == "hello"
    log = farm.log_file.read_text()
    assert ADMIN_KEY not in log
    assert token not in log


def test_without_a_key_only_this_host_may_ask(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", ON | {"gopush2.one_port": True, "router.routers": 1}, workers=1) as farm:
        for port in (farm.router_port, farm.device_port):
            url = f"http://127.0.0.1:{port}/stat?type=server"
            assert curl(url).json()["pid"] == farm.router_pid()
            for header in ("X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"):
                assert curl("-H", header, url).status == 403


def test_stat(farm: Farm) -> None:
    def stat(kind: str) -> bytes:
        answer = curl(farm.url(f"/stat?type={kind}&admin_key={ADMIN_KEY}"))
        assert (answer.status, answer.headers.get("content-type", "")) in (
            (200, "text/plain; charset=utf-8"),
            (200, ""),
        )
        return answer.body

    expected = {
        "memory": {"sys", "num_gc", "enable_gc", "debug_gc"},
        "golang": {"compiler", "arch", "os", "max_procs", "root", "version"},
        "server": {"uptime", "hostname", "wd", "ppid", "pid", "pagesize", "user", "group"},
        "channel": {"created", "refreshed"},
        "subscriber": {"created", "added_message", "expired_message", "failed_message", "cur_conn", "total_conn"},
    }
    for kind, names in expected.items():
        found = json.loads(stat(kind))
        assert set(found) == names
        assert list(found) == sorted(found)
    assert json.loads(stat("memory"))["sys"] > 10_000_000
    assert json.loads(stat("server"))["pid"] in [row["pid"] for row in farm.status()["routers"]]
    config = json.loads(stat("config"))
    assert config == json.loads(stat("confit"))
    assert ADMIN_KEY not in json.dumps(config)
    assert config["admin_addr"] == f"127.0.0.1:{farm.router_port}"
    assert stat("nothing") == b""
    assert curl("-d", "", farm.url(f"/stat?type=memory&admin_key={ADMIN_KEY}")).body == b"Method Not Allowed\n"


# ---------------------------------------------------------------------- what survives, and what does not


def test_what_was_accepted_is_there_when_the_router_is_killed(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", ON | CRASH | {"gopush2.max_stored_message": 900}) as farm:
        key = new_key()
        create(farm, key, "one", "two")
        accepted: list[str] = []
        ended = threading.Event()

        def publish() -> None:
            """Without IDs: a message whose answer is lost is not sent again."""
            for number in count():
                if ended.is_set():
                    return
                try:
                    answer = curl("--data-binary", f"message {number}", farm.url(f"/pub?key={key}"))
                except subprocess.CalledProcessError:  # the router is away, or has gone in between
                    continue
                if answer.json()["ret"] == 0:
                    accepted.append(f"message {number}")

        with Device(farm, key, token="one") as live:
            publisher = threading.Thread(target=publish)
            publisher.start()
            try:
                for _ in range(2):
                    enough = len(accepted) + 10
                    until(lambda enough=enough: len(accepted) >= enough, "messages are accepted", 3 * PATIENCE_S)
                    os.kill(farm.router_pid(), signal.SIGKILL)
                    farm.wait_healthy()
                enough = len(accepted) + 10
                until(lambda: len(accepted) >= enough, "messages are accepted", 3 * PATIENCE_S)
            finally:
                ended.set()
                publisher.join(3 * PATIENCE_S)
            heard, mids = [], []
            while not heard or heard[-1] != accepted[-1]:
                heard.append(live.message())
                mids.append(live.mid)
        assert mids == sorted(set(mids))
        assert set(accepted) <= set(heard)
        assert len(heard) == len(set(heard))
        with Device(farm, key, mids[0], "two") as later:
            again = [later.message() for _ in heard[1:]]
        assert again == heard[1:]


def test_nothing_is_left_of_a_channel_that_has_expired(tmp_path: Path) -> None:
    settings = ON | {"gopush2.channel_expire": 5, "store.sweep_interval": 0.2}
    with running_farm(tmp_path / "data", settings, workers=1) as farm:
        key = new_key()
        create(farm, key, "used", "unused")
        with Device(farm, key, token="used") as device:
            push(farm, key, "hello", 5)
            assert device.message() == "hello"
            assert stored(farm) == 5  # channel, token, who has taken the other one, log, message
            assert device.code() == 4410
        assert answered(farm, "POST", "/pub", "late", key=key) == NOBODY
        until(lambda: stored(farm) == 0, "the store is empty")
        create(farm, key, "used")
        with Device(farm, key, token="used") as device:
            push(farm, key, "anew", 5)
            assert device.message() == "anew"


def stored(farm: Farm) -> int:
    """Rows in the store that are gopush2's."""
    found = 0
    for file in (*farm.data.glob("store.sqlite3"), *farm.data.glob("store-*/router-*.sqlite3")):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            counts = database.execute(
                "SELECT (SELECT count(*) FROM record WHERE space LIKE 'gopush2%'), (SELECT count(*) FROM event), "
                "(SELECT count(*) FROM head)"
            ).fetchone()
        found += sum(counts)
    return found
