"""Pusher clients about whom a main server is asked, in a real farm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, Farm, running_farm
from support.main_server import REFUSAL, MainServer
from support.pusher import KEY, Client, trigger, with_apps


@pytest.fixture(scope="module")
def farm(main_server: MainServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    settings = with_apps(folder) | {"pusher.auth_url": main_server.url()}
    with running_farm(folder / "data", settings) as running:
        yield running


def test_without_the_cookie_a_client_is_refused_as_the_main_server_says(farm: Farm) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        Client(farm)
    assert refused.value.status_code == 403
    assert refused.value.resp_body == REFUSAL.encode()


def test_with_it_a_client_has_the_channels_that_are_granted(farm: Farm, main_server: MainServer) -> None:
    with Client(farm, cookie="does=channels") as client:
        client.send("pusher:subscribe", {"channel": "b"})
        error = client.expect("pusher:subscription_error", "b")
        assert (error["type"], error["status"]) == ("AuthError", 401)
        client.send("pusher:subscribe", {"channel": "a"})
        client.expect("pusher_internal:subscription_succeeded", "a")
        trigger(farm, "a", "hello", "hi")
        assert client.expect("hello", "a") == "hi"
    (seen,) = main_server.seen(cookie="does=channels")
    assert seen["x-dialect"] == "pusher"
    assert seen["x-original-uri"].startswith(f"/app/{KEY}?protocol=7")


def test_who_is_not_allowed_any_more_is_closed_for_good(farm: Farm) -> None:
    client = Client(farm, cookie="does=twice.pusher")
    assert client.code() == 4009
    client.socket.shutdown()


def test_other_dialects_are_not_asked_about(farm: Farm) -> None:
    websocket.create_connection(farm.device_url, timeout=PATIENCE_S).close()
