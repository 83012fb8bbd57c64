"""gopush2's devices where a main server decides, over WebSocket and over TCP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, Farm, running_farm
from support.gopush2 import ON, Device, TcpDevice, create, push
from support.main_server import REFUSAL, MainServer

from bench.machine.ports import free_ports


@pytest.fixture(scope="module")
def farm(main_server: MainServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = ON | {"gopush2.auth_url": main_server.url(), "gopush2.tcp_port": free_ports(1)[0]}
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings) as running:
        yield running


def connected(farm: Farm, query: str, cookie: str) -> websocket.WebSocket:
    return websocket.create_connection(f"{farm.device_url}sub?{query}", timeout=PATIENCE_S, cookie=cookie)


def test_without_the_cookie_a_device_is_refused_as_the_main_server_says(farm: Farm) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        Device(farm, "a")
    assert refused.value.status_code == 403
    assert refused.value.resp_body == REFUSAL.encode()


def test_with_it_a_device_may_have_the_keys_that_are_granted(farm: Farm, main_server: MainServer) -> None:
    create(farm, "a", "token-a")
    create(farm, "b", "token-b")
    client = connected(farm, "key=a&mid=0&token=token-a", "does=channels.gopush2")
    assert client.recv() == "h"
    other = connected(farm, "key=b&mid=0&token=token-b", "does=channels.gopush2")
    opcode, data = other.recv_data()
    assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 4403)
    assert {one["x-channels"] for one in main_server.seen(cookie="does=channels.gopush2")} == {"a", "b"}
    for socket in (client, other):
        socket.shutdown()


def test_over_tcp_it_is_asked_too_and_a_refusal_ends_the_connection(farm: Farm, main_server: MainServer) -> None:
    create(farm, "for-all", "token-tcp")
    with TcpDevice(farm, "for-all", token="token-tcp") as device:
        device.greeted()
        push(farm, "for-all", "hello")
        assert device.message()[1] == "hello"
    with TcpDevice(farm, "nobody") as device:
        assert device.ended()
    assert [one["x-channels"] for one in main_server.seen(x_dialect="gopush2")][-2:] == ["for-all", "nobody"]
