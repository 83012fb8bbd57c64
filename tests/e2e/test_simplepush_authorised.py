"""SimplePush devices about which a main server is asked, in a real farm: WebPush is on their path, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import websocket
from support.farm_fixture import Farm, command, running_farm
from support.main_server import REFUSAL, MainServer
from support.simplepush import Device, put


@pytest.fixture(scope="module")
def farm(main_server: MainServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("farm") / "data", {"auth.url": main_server.url()}) as running:
        yield running


def test_without_the_cookie_a_device_is_refused_as_the_main_server_says(farm: Farm) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        Device(farm)
    assert refused.value.status_code == 403
    assert refused.value.resp_body == REFUSAL.encode()


def test_with_it_a_device_is_as_any_other(farm: Farm, main_server: MainServer) -> None:
    with Device(farm, cookie="does=yes.simplepush") as device:
        device.hello()
        channel, endpoint = device.register()
        assert put(endpoint, 7) == 200
        assert device.updates() == [(channel, 7)]
    (seen,) = main_server.seen(cookie="does=yes.simplepush")
    assert "simplepush" in seen["x-dialect"].split(",")


def test_who_is_not_allowed_any_more_is_closed(farm: Farm) -> None:
    with Device(farm, cookie="does=twice.simplepush") as device:
        device.hello()
        opcode, data = device.socket.recv_data()
        assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1008)


def test_the_settings_are_refused_where_the_path_would_have_two_main_servers(farm: Farm) -> None:
    done = command(farm, "check-config", "--set", "simplepush.auth_url=http://main.example/auth?key=secret")
    assert done.returncode == (2 if "webpush" in done.stderr else 0)
    if done.returncode:
        assert "simplepush.auth_url" in done.stderr
        assert "set both alike" in done.stderr
        assert "secret" not in done.stderr
