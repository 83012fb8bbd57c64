"""gopush2's devices against a whole farm: its README walked through, tokens, heartbeats, the limit over two workers,
and its TCP protocol."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import Farm, curl, running_farm, until
from support.gopush2 import ON, Device, Gone, TcpDevice, answered, create, new_key, push

from bench.machine.ports import free_ports

MOST = 3


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers; tokens are asked for, and a key may have few devices."""
    settings = ON | {
        "gopush2.tcp_port": free_ports(1)[0],
        "gopush2.debug": True,
        "gopush2.max_subscriber_per_key": MOST,
        "log.level": "debug",
    }
    with running_farm(tmp_path_factory.mktemp("gopush2") / "data", settings) as running:
        yield running


# ---------------------------------------------------------------------- its README


def test_the_readme_with_curl_and_a_browser(farm: Farm, tmp_path: Path) -> None:
    page_url = f"http://127.0.0.1:{farm.device_port}/client"
    assert answered(farm, "GET", "/ch", key="Terry-Mao", token="test") == {"msg": "ok", "ret": 0}
    with Chromium(find_chromium(), tmp_path / "chromium") as chromium, Tab(chromium) as page:
        page.open(page_url)
        state = "document.getElementById('state').textContent"
        until(lambda: page.evaluate(state) == "connected, key Terry-Mao", "it is connected")
        assert answered(farm, "POST", "/pub", "hello world", key="Terry-Mao", mid=1, expire=60)["ret"] == 0
        messages = "[...document.querySelectorAll('li')].map((item) => item.textContent)"
        assert until(lambda: page.evaluate(messages), "the message is there") == ["1: hello world"]
        with Tab(chromium) as another:
            another.open(f"{page_url}?mid=0&key=Terry-Mao&token=test")
            until(lambda: another.evaluate(state).startswith("closed: 4401 "), "its token was used")
        with Tab(chromium) as page_of_another_port:
            page_of_another_port.open(f"http://127.0.0.1:{farm.device_port}/another")
            create = farm.url("/ch?key=Terry-Mao&token=of-a-page")
            for mode in ("no-cors", "cors"):
                page_of_another_port.evaluate(f"fetch('{create}', {{mode: '{mode}'}}).catch(() => 0).then(() => 1)")
        assert answered(farm, "GET", "/ch", key="Terry-Mao", token="of-a-page")["ret"] == 0


# ---------------------------------------------------------------------- tokens and parameters


def test_a_token_is_good_for_one_connection(farm: Farm) -> None:
    key = new_key()
    create(farm, key, "one", "two")
    with Device(farm, key, token="one") as device, Device(farm, key, token="two") as other:
        assert Device(farm, key, token="one", greets=False).code() == 4401
        assert Device(farm, key, token="three", greets=False).code() == 4401
        assert Device(farm, key, greets=False).code() == 4401
        push(farm, key, "to both")
        assert (device.message(), other.message()) == ("to both", "to both")


def test_a_channel_is_there_before_its_devices(farm: Farm) -> None:
    assert Device(farm, new_key(), token="one", greets=False).code() == 4404


def test_who_asks_for_nothing_that_there_is_hears_why(farm: Farm) -> None:
    assert Device(farm, new_key(), heartbeat=0, greets=False).code() == 4400
    assert curl(f"http://127.0.0.1:{farm.device_port}/sub?key=a&mid=0").status == 426
    assert curl(f"http://127.0.0.1:{farm.device_port}/sub/a").status == 404


def test_keys_and_tokens_are_in_no_log(farm: Farm) -> None:
    key, good, bad = new_key(), new_key(), new_key()
    create(farm, key, good)
    push(farm, key, "hello")
    with Device(farm, key, token=good):
        assert Device(farm, key, token=bad, greets=False).code() == 4401
        assert Device(farm, key, token=good, heartbeat="x", greets=False).code() == 4400
    with TcpDevice(farm, key, token=bad) as device:
        assert device.ended()
    assert curl(f"http://127.0.0.1:{farm.device_port}/sub?key={key}&mid=0&token={good}").status == 426
    log = farm.log_file.read_text()
    assert "router.ready" in log
    assert not any(secret in log for secret in (key, good, bad))


# ---------------------------------------------------------------------- messages and heartbeats


def test_what_was_missed_comes_first_and_in_order(farm: Farm) -> None:
    key = new_key()
    create(farm, key, "one", "two")
    for mid in (5, 3, 9):
        push(farm, key, f"message {mid}", mid)
    with Device(farm, key, 3, "one") as device:
        assert [device.message(), device.message()] == ["message 5", "message 9"]
        push(farm, key, 'with "quotes" and €', 10)
        push(farm, key, "", 11)
        assert [device.message(), device.message()] == ['with "quotes" and €', ""]
        assert device.mid == 11
    with Device(farm, key, device.mid, "two") as device:
        push(farm, key, "of the farm's own ID")
        assert device.message() == "of the farm's own ID"
        assert 11 < device.mid < 2**53


def test_heartbeats_are_answered_in_kind(farm: Farm) -> None:
    key = new_key()
    create(farm, key, "one")
    with Device(farm, key, token="one") as device:
        for beat in ("h", "", "h", ""):
            device.beat(beat)
        device.socket.send("x")
        assert device.code() == 4415


def test_a_silent_device_is_closed(farm: Farm) -> None:
    key = new_key()
    create(farm, key, "one", "two")
    with Device(farm, key, token="one", heartbeat=1) as device, Device(farm, key, token="two", heartbeat=100) as other:
        assert device.code() == 4408
        other.beat()


# ---------------------------------------------------------------------- the limit


def test_a_key_never_has_more_devices_than_it_may_on_both_workers_together(farm: Farm) -> None:
    key = new_key()
    tokens = [f"token {number}" for number in range(12)]
    create(farm, key, *tokens)
    with ExitStack() as stack, ThreadPoolExecutor(len(tokens)) as threads:

        def comes(token: str) -> Device | str:
            try:
                device = Device(farm, key, token=token)
            except Gone as gone:
                assert gone.args == (4429,)
                return token
            stack.callback(device.socket.shutdown)
            return device

        came = list(threads.map(comes, tokens))
        devices = [device for device in came if isinstance(device, Device)]
        refused = [token for token in came if isinstance(token, str)]
        assert len(devices) == MOST
        push(farm, key, "to all")
        assert [device.message() for device in devices] == ["to all"] * MOST
        # The token of one that was refused is good yet, as soon as there is room for it.
        devices[0].socket.shutdown()
        until(lambda: isinstance(comes(refused[0]), Device), "there is room")
        assert isinstance(comes(refused[1]), str)


# ---------------------------------------------------------------------- TCP


def test_the_tcp_protocol(farm: Farm) -> None:
    key = new_key()
    create(farm, key, "one", "two")
    push(farm, key, "missed €", 7)
    with TcpDevice(farm, key, 0, token="one") as device, Device(farm, key, 7, "two") as other:
        device.greeted()
        assert device.message() == (7, "missed €")
        device.beat()
        push(farm, key, "to both", 8)
        assert device.message() == (8, "to both")
        assert other.message() == "to both"
        device.socket.sendall(b"no heartbeat")
        assert device.ended()
        other.beat()


def test_over_tcp_it_is_refused_without_a_word(farm: Farm) -> None:
    key = new_key()
    create(farm, key, "one")
    with TcpDevice(farm, key, token="two") as device:
        assert device.ended()
    with TcpDevice(farm, key, heartbeat=0, token="one") as device:
        assert device.ended()


def test_a_silent_device_is_closed_over_tcp(farm: Farm) -> None:
    key = new_key()
    create(farm, key, "one")
    with TcpDevice(farm, key, heartbeat=1, token="one") as device:
        device.greeted()
        assert device.ended()


# ---------------------------------------------------------------------- the end of a channel


def test_a_channel_that_expires_closes_its_devices(tmp_path: Path) -> None:
    settings = ON | {"gopush2.channel_expire": 2}
    with running_farm(tmp_path / "data", settings, workers=1) as farm:
        key = new_key()
        create(farm, key, "one")
        with Device(farm, key, token="one") as device:
            assert device.code() == 4410
        assert answered(farm, "POST", "/pub", "late", key=key, mid=1)["ret"] == 3
        assert Device(farm, key, token="one", greets=False).code() == 4404
