"""Pusher through a farm of real processes: connections, users, and where its applications come from."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.farm_fixture import Farm, curl, refusal, running, running_farm, until
from support.pusher import APP, CRASH, KEY, SECRET, Client, call, clients, new_name, subscribers, trigger, with_apps


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers."""
    folder = tmp_path_factory.mktemp("farm")
    settings = with_apps(folder, pusher__authorization_timeout=1, pusher__max_members=20)
    with running_farm(folder / "data", settings) as farm:
        yield farm


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Farm]:
    """Two workers, of a farm for one test, that notices soon which process has died."""
    with running_farm(tmp_path / "data", with_apps(tmp_path) | CRASH) as farm:
        yield farm


def test_a_device_is_greeted_and_its_ping_answered(farm: Farm) -> None:
    with Client(farm) as client:
        assert client.greeting["data"]["activity_timeout"] == 120
        assert all(part.isdecimal() for part in client.socket_id.split("."))
        client.send("pusher:ping", {})
        assert client.expect("pusher:pong") == {}


@pytest.mark.parametrize(
    ("key", "query", "code"),
    [
        ("nobody", "protocol=7", 4001),
        ("shut-key", "protocol=7", 4003),
        ("", "protocol=7", 4005),
        (KEY, "protocol=x", 4006),
        (KEY, "protocol=3", 4007),
        (KEY, "client=js", 4008),
    ],
)
def test_who_cannot_be_served_is_told_and_closed(farm: Farm, key: str, query: str, code: int) -> None:
    client = Client(farm, key, query)
    assert client.greeting["event"] == "pusher:error"
    assert client.greeting["data"]["code"] == code
    assert client.code() == code
    client.socket.shutdown()


@pytest.mark.parametrize("prefix", ["", "private-", "presence-"])
def test_who_has_heard_that_it_is_subscribed_is_counted(farm: Farm, prefix: str) -> None:
    channel = new_name(prefix)
    with clients(farm, 8) as found:
        for number, client in enumerate(found, 1):
            client.subscribe(channel, json.dumps({"user_id": number}) if prefix == "presence-" else None)
            assert subscribers(farm, channel) == number


def test_a_path_that_goes_further_is_none(farm: Farm) -> None:
    host = f"127.0.0.1:{farm.device_port}"
    answer = refusal(farm.device_port, f"GET /app/{KEY}/more HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.status == 404


def test_who_is_not_authorized_in_time_is_closed(farm: Farm) -> None:
    stranger = Client(farm, "strict-key")
    with Client(farm, "strict-key") as friend:
        friend.subscribe("private-a", secret="strict-secret")
        assert stranger.expect("pusher:error")["code"] == 4009
        assert stranger.code() == 4009
        friend.send("pusher:ping")
        friend.expect("pusher:pong")
    stranger.socket.shutdown()


def test_a_device_that_falls_silent_is_asked_and_then_closed(tmp_path: Path) -> None:
    settings = with_apps(tmp_path, pusher__activity_timeout=1, pusher__pong_timeout=1)
    with running_farm(tmp_path / "data", settings, workers=1) as farm:
        client = Client(farm)
        client.expect("pusher:ping")
        client.send("pusher:pong", {})
        client.expect("pusher:ping")
        assert client.code() == 4201
        client.socket.shutdown()


def test_a_worker_that_is_replaced_sends_its_devices_back_slowly(mortal: Farm) -> None:
    with clients(mortal, 4) as there:
        os.kill(mortal.pid, signal.SIGHUP)
        assert [client.code() for client in there] == [4100] * 4
        until(lambda: list(mortal.events("reload.done")), "both workers are new ones")
    with Client(mortal) as client:
        assert client.subscribe("news") == {}


def test_a_reload_reads_the_applications_anew_and_is_refused_if_it_cannot(mortal: Farm) -> None:
    file = Path(mortal.settings["pusher.apps"])
    before = mortal.router_pid()
    with Client(mortal) as client:
        file.write_text(json.dumps({"applications": [APP, APP]}))
        os.kill(mortal.pid, signal.SIGHUP)
        until(lambda: list(mortal.events("reload.refused")), "it says that it cannot be")
        assert "two have the" in next(mortal.events("reload.refused"))["why"]
        assert client.subscribe("news") == {}
        assert call(mortal, "GET", "/channels").status == 200
        assert mortal.router_pid() == before
        file.write_text(json.dumps({"applications": [APP | {"secret": "another"}]}))
        os.kill(mortal.pid, signal.SIGHUP)
        assert client.code() == 4100
        until(lambda: list(mortal.events("reload.done")), "all processes are new ones")
    assert call(mortal, "GET", "/channels").status == 401
    with Client(mortal) as client:
        assert client.subscribe("private-news", secret="another") == {}


def test_a_user_hears_what_is_sent_to_him_wherever_he_is(farm: Farm) -> None:
    user = new_name("user ")
    channel = f"#server-to-user-{user}"
    with clients(farm, 3) as there, Client(farm) as stranger:
        for client in there:
            client.sign_in(user)
        there[0].subscribe(channel)
        there[2].subscribe(channel)
        stranger.send("pusher:subscribe", {"channel": channel})
        assert stranger.expect("pusher:subscription_error", channel)["status"] == 401
        trigger(farm, channel, "hello", 1)
        for client in (there[0], there[2]):
            assert client.expect("hello", channel) == 1
        for client in (there[1], stranger):
            client.send("pusher:ping")
            client.expect("pusher:pong")


def test_a_users_connections_are_closed_and_nobody_elses(farm: Farm) -> None:
    user = new_name()
    with clients(farm, 4) as there, Client(farm) as stranger:
        for client in there:
            client.sign_in(user)
        there[0].subscribe(f"#server-to-user-{user}")
        stranger.sign_in(new_name())
        answer = call(farm, "POST", f"/users/{user}/terminate_connections", {})
        assert (answer.status, answer.json()) == (200, {})
        for client in there:
            assert 4000 <= client.code() < 4100  # pusher-js does not come back by itself
        stranger.send("pusher:ping")
        stranger.expect("pusher:pong")


def test_a_watchlist_tells_of_users_on_both_shards(farm: Farm) -> None:
    watcher, friend, stranger = new_name("a"), new_name("b"), new_name("c")
    with clients(farm, 3) as there:
        far, near, other = there[-1], there[0], there[1]
        near.sign_in(friend)
        far.sign_in(watcher, watchlist=[friend, stranger])
        told = far.expect("pusher_internal:watchlist_events")["events"]
        assert told == [{"name": "online", "user_ids": [friend]}, {"name": "offline", "user_ids": [stranger]}]
        other.sign_in(stranger)
        assert far.expect("pusher_internal:watchlist_events")["events"] == [{"name": "online", "user_ids": [stranger]}]
        near.close()
        assert far.expect("pusher_internal:watchlist_events")["events"] == [{"name": "offline", "user_ids": [friend]}]
        assert not [name for name in call(farm, "GET", "/channels").json()["channels"] if name.startswith("#")]


class Migrated(Farm):
    """A farm that is started with MicroNotifier's configuration."""

    def arguments(self) -> list[str]:
        file = self.data.parent / "config.json"
        redis = {"address": "", "password": "", "database": 0}
        apps = [{"name": "test", "key": KEY, "secret": SECRET}]
        file.write_text(json.dumps({"host": "localhost", "port": 8111, "applications": apps, "redis": redis}))
        return [*super().arguments(), "--micronotifier-config", str(file)]


def test_a_farm_from_micronotifiers_configuration(tmp_path: Path) -> None:
    settings = {"pusher.unsigned": True}
    with running(Migrated(tmp_path / "data", settings, workers=1)) as farm, Client(farm) as client:
        client.subscribe("news")
        body = json.dumps({"name": "hello", "channels": ["news"], "data": '"world"'}).encode()
        answer = curl("--data-binary", "@-", farm.url("/apps/test/events"), stdin=body)
        assert answer.status == 200, answer
        assert client.expect("hello", "news") == "world"
