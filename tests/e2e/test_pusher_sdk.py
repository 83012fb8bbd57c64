"""The Python library of Pusher Channels (PyPI `pusher`) against a whole farm of two workers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from nacl.secret import SecretBox
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus, PusherForbidden
from support.farm_fixture import Farm, Json, running_farm, until
from support.pusher_sdk import APP, MASTER, OFF, Device, allowed, library

MANY: Final = 12
"""Devices, so that both workers have some of them."""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers."""
    folder = tmp_path_factory.mktemp("farm")
    apps = folder / "apps.json"
    apps.write_text(json.dumps({"applications": [APP, OFF]}))
    with running_farm(folder / "data", {"pusher.apps": apps}) as farm:
        yield farm


def test_an_event_for_all_but_its_sender(farm: Farm) -> None:
    server = library(farm)
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(farm)) for _ in range(MANY)]
        for device in devices:
            device.subscribe("news")
        assert server.trigger("news", "fresh", {"gr\u00fc\u00df": "\U0001f600"}, devices[0].id) == {}
        assert server.trigger(["news", "nobody"], "stale", "text") == {}
        for device in devices[1:]:
            fresh = device.hear("fresh")
            assert (fresh["channel"], json.loads(fresh["data"])) == ("news", {"gr\u00fc\u00df": "\U0001f600"})
        assert [device.hear("stale")["data"] for device in devices] == ["text"] * MANY
        for device in devices:
            device.nothing_more()


def test_a_batch(farm: Farm) -> None:
    server = library(farm)
    with Device(farm) as device:
        device.subscribe("one")
        device.subscribe("two")
        batch: list[Json] = [
            {"channel": "one", "name": "first", "data": {"n": 1}},
            {"channel": "two", "name": "second", "data": "2", "socket_id": device.id},
            {"channel": "two", "name": "third", "data": "3", "info": "subscription_count"},
        ]
        answer = server.trigger_batch(batch)
        assert answer == {"batch": [{}, {}, {"subscription_count": 1}]}
        assert device.hear("first")["data"] == '{"n": 1}'
        assert device.hear("third")["channel"] == "two"
        device.nothing_more()


def test_what_is_there(farm: Farm) -> None:
    server = library(farm)
    name = "presence-room"
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(farm)) for _ in range(MANY)]
        for number, device in enumerate(devices):
            member = {"user_id": f"user-{number % 3}", "user_info": {"number": number % 3}}
            device.subscribe(name, **allowed(server, device, name, member))
            device.subscribe("private-open", **allowed(server, device, "private-open"))
        counts = {"user_count": 3, "subscription_count": MANY}
        # Counts of a channel come from the workers about once a second.
        until(
            lambda: server.channel_info(name, ["user_count", "subscription_count"]) == {"occupied": True} | counts,
            "counts",
        )
        assert server.channels_info("presence-ro", ["user_count", "subscription_count"]) == {"channels": {name: counts}}
        assert set(server.channels_info()["channels"]) >= {name, "private-open"}
        users = server.users_info(name)["users"]
        assert sorted(user["id"] for user in users) == ["user-0", "user-1", "user-2"]
        assert server.channel_info("presence-none", ["user_count"]) == {"occupied": False, "user_count": 0}
    until(lambda: name not in server.channels_info()["channels"], "the channel is vacated")
    assert server.users_info(name) == {"users": []}


def test_encrypted_channels(farm: Farm) -> None:
    server = library(farm)
    name = "private-encrypted-secrets"
    with Device(farm) as device:
        device.subscribe(name, **allowed(server, device, name))
        server.trigger(name, "secret", {"hidden": "thing"})
        found = json.loads(device.hear("secret")["data"])
        assert set(found) == {"nonce", "ciphertext"}
        box = SecretBox(hashlib.sha256(name.encode() + MASTER).digest())
        plain = box.decrypt(base64.b64decode(found["ciphertext"]), base64.b64decode(found["nonce"]))
        assert json.loads(plain) == {"hidden": "thing"}


def test_cache_channels(farm: Farm) -> None:
    server = library(farm)
    with Device(farm) as device:
        device.subscribe("cache-rates")
        device.hear("pusher:cache_miss")
        server.trigger("cache-rates", "rate", {"eur": 1})
        server.trigger("cache-rates", "rate", {"eur": 2})
        assert [json.loads(device.hear("rate")["data"]) for _ in "12"] == [{"eur": 1}, {"eur": 2}]
    with Device(farm) as device:
        device.subscribe("cache-rates")
        assert json.loads(device.hear("rate")["data"]) == {"eur": 2}
    cache = server.channel_info("cache-rates", ["cache"])["cache"]
    assert json.loads(cache["data"]) == {"eur": 2}
    assert 0 < cache["ttl"] <= 1800


def test_one_user_on_several_devices(farm: Farm) -> None:
    server = library(farm)
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(farm)) for _ in range(MANY)]
        other = stack.enter_context(Device(farm))
        for device, user in [*((device, "jim") for device in devices), (other, "joe")]:
            device.say("pusher:signin", **server.authenticate_user(device.id, {"id": user}))
            device.hear("pusher:signin_success")
            device.subscribe(f"#server-to-user-{user}")
        server.trigger("#server-to-user-jim", "for-jim", {})
        for device in devices:
            device.hear("for-jim")
        assert not any(name.startswith("#") for name in server.channels_info()["channels"])
        assert server.terminate_user_connections("jim") == {}
        assert [device.close_code() for device in devices] == [4009] * MANY
        other.nothing_more()


def test_refusals(farm: Farm) -> None:
    server = library(farm)
    with Device(farm) as device:
        device.subscribe("news")
        for other in (library(farm, secret="wrong"), library(farm, key="wrong")):
            with pytest.raises(PusherBadAuth):
                other.trigger("news", "no", {})
            with pytest.raises(PusherBadAuth):
                other.channels_info()
            with pytest.raises(PusherBadAuth):
                other.terminate_user_connections("jim")
        with pytest.raises(PusherForbidden):
            library(farm, OFF).trigger("news", "no", {})
        with pytest.raises(PusherBadStatus, match="404"):
            library(farm, app_id="99").trigger("news", "no", {})
        with pytest.raises(PusherBadStatus, match="413"):
            server.trigger("news", "no", "x" * 10_241)
        with pytest.raises(PusherBadRequest, match="presence"):
            server.channels_info(attributes=["user_count"])
        with pytest.raises(PusherBadRequest, match="presence"):
            server.users_info("news")
        with pytest.raises(PusherBadRequest, match="Batch too large"):
            server.trigger_batch([{"channel": "news", "name": "no", "data": ""}] * 11)
        device.nothing_more()


def test_an_old_request_and_one_for_another_path(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    server = library(farm)
    requests: list[Any] = []
    monkeypatch.setattr(server._pusher_client.http, "send_request", requests.append)
    server.channels_info()
    monkeypatch.setattr("pusher.http.time.time", lambda: 1_000_000_000)
    server.trigger("news", "old", {})
    monkeypatch.undo()
    now, old = requests
    send = library(farm)._pusher_client.http.send_request
    assert "channels" in send(now)
    now.path = "/apps/3/channels/news"
    with pytest.raises(PusherBadAuth, match="auth_signature"):
        send(now)
    with pytest.raises(PusherBadAuth, match="clocks"):
        send(old)
