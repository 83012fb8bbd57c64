"""SimplePush through a farm of real processes: devices on libraries that are not ours, pushes by curl."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio_websocket
from support.farm_fixture import Farm, curl, new_channel, running_farm, until
from support.simplepush import Device, put
from support.simplepush_frames import hello

from router.common.token import new_key


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as farm:
        yield farm


@pytest.fixture
def device(farm: Farm) -> Iterator[Device]:
    """A device that has said hello."""
    with Device(farm) as device:
        device.hello()
        yield device


def test_a_push_reaches_its_device(farm: Farm) -> None:
    with Device(farm) as device:
        assert device.socket.getsubprotocol() == "push-notification"
        reply = device.hello()
        assert reply == {"messageType": "hello", "uaid": device.uaid, "status": 200}
        assert len(device.uaid) == 32
        channel, endpoint = device.register()
        assert endpoint.startswith(farm.url("/update/"))
        assert put(endpoint, 7) == 200
        assert device.updates() == [(channel, 7)]
        device.ack((channel, 7))
        answer = curl("--request", "PUT", "--data", "version=8&data=so+it+is", endpoint)
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"{}", "application/json")
        assert device.receive() == {
            "messageType": "notification",
            "updates": [{"channelID": channel, "version": 8, "data": "so it is"}],
        }


def test_the_same_on_trio_websocket(farm: Farm) -> None:
    async def main() -> None:
        url = farm.device_url
        async with trio_websocket.open_websocket_url(url, subprotocols=["other", "push-notification"]) as device:
            assert device.subprotocol == "push-notification"
            await device.send_message(json.dumps(hello()))
            uaid = json.loads(await device.get_message())["uaid"]
            channel = new_channel()
            await device.send_message(json.dumps({"messageType": "register", "channelID": channel}))
            registered = json.loads(await device.get_message())
            assert registered["uaid"] == uaid
            assert await trio.to_thread.run_sync(put, registered["pushEndpoint"], 1) == 200
            assert json.loads(await device.get_message())["updates"] == [{"channelID": channel, "version": 1}]
            await device.send_message(json.dumps({"messageType": "ack", "updates": [{"channelID": channel}]}))
            await device.ping(b"still there?")
        assert device.closed.code == 1000

    trio.run(main)


@pytest.mark.parametrize("headers", [[], ["Sec-WebSocket-Protocol: other"]])
def test_the_subprotocol_is_only_named_if_it_was_offered(farm: Farm, headers: list[str]) -> None:
    with Device(farm, subprotocols=None, header=headers) as device:
        assert device.socket.getsubprotocol() is None
        assert "sec-websocket-protocol" not in (device.socket.getheaders() or {})
        device.hello()


def test_what_came_while_the_device_was_away_waits_for_it(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        first, first_endpoint = device.register()
        second, second_endpoint = device.register()
        never, _ = device.register()
    until(lambda: put(first_endpoint, 1) == 202, "the farm knows that the device is away")
    assert put(first_endpoint, 2, "--data", "data=gone") == 202
    assert put(second_endpoint, 5) == 202
    with Device(farm) as again:
        again.hello(device.uaid, (first, second, never))
        assert again.uaid == device.uaid
        assert sorted(again.updates()) == sorted([(first, 2), (second, 5)])
        again.ack((first, 2), (second, 4))  # an older version than the one that waits
        again.settle()
    with Device(farm) as again:
        again.hello(device.uaid)
        assert again.updates() == [(second, 5)]
        again.hello(device.uaid)
        assert again.updates() == [(second, 5)]
        again.ack((second, 5))
        again.settle()
    with Device(farm) as again:
        again.hello(device.uaid)
        assert again.ask(messageType="ping") == {}  # nothing before it


def test_an_unregistered_channel_forgets_what_waited(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    assert put(endpoint, 3) == 200
    assert device.updates() == [(channel, 3)]
    assert device.ask(messageType="unregister", channelID=channel) == {
        "messageType": "unregister",
        "status": 200,
        "channelID": channel,
    }
    device.hello(device.uaid)
    assert device.ask(messageType="ping") == {}


def test_a_version_may_be_left_out(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    before = int(time.time())
    assert put(endpoint) == 200
    [(told, version)] = device.updates()
    assert told == channel
    assert before <= version <= time.time() + 1


def devices_moved(farm: Farm) -> int:
    """From one worker to the other, as the routers have seen it."""
    return sum(row["devices_moved"] for row in farm.status()["routers"])


@pytest.mark.parametrize("times", [1, 12])
def test_the_newest_connection_of_a_uaid_wins(farm: Farm, device: Device, times: int) -> None:
    # One new connection lands on either shard; of twelve some change the shard and some do not.
    channel, endpoint = device.register()
    moved = devices_moved(farm)
    holder = device
    with contextlib.ExitStack() as stack:
        for version in range(1, times + 1):
            newer = stack.enter_context(Device(farm))
            newer.hello(device.uaid, (channel,))
            assert holder.close_code() == 1001
            holder = newer
            assert put(endpoint, version) == 200
            assert holder.updates() == [(channel, version)]
            holder.ack((channel, version))
            holder.settle()
        if times > 1:
            # The chance that all of twelve find the shard of the one before them is 1 in 4096.
            assert devices_moved(farm) > moved


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        ({"messageType": "register", "channelID": new_channel()}, 401, "Command requires handshake"),
        ({"messageType": "what"}, 401, "Unsupported command type"),
        ({"messageType": 5}, 401, "Invalid command header"),
        ([], 401, "Invalid command header"),
        ({"messageType": "hello"}, 401, "Missing one or more required command fields"),
        (hello("no uuid"), 503, "Invalid device ID"),
    ],
)
def test_an_error_is_told_and_ends_the_connection(farm: Farm, command: object, status: int, reason: str) -> None:
    with Device(farm) as device:
        device.send(command)
        reply = device.receive()
        assert (reply["status"], reply["reason"]) == (status, reason)
        assert reply["error"] == ("Invalid Command" if status == 401 else reason)
        assert device.close_code() == 1000


def test_what_is_not_json_gets_no_reply(farm: Farm) -> None:
    with Device(farm) as device:
        device.socket.send("{")
        assert device.close_code() == 1000


def test_a_second_uaid_on_one_connection_is_refused(farm: Farm, device: Device) -> None:
    reply = device.ask(**hello(new_channel()))
    assert (reply["status"], reply["error"]) == (503, "Device ID already assigned to this client")
    assert device.close_code() == 1000


def test_a_ping_flood_is_closed(farm: Farm, device: Device) -> None:
    assert device.ask() == {}
    reply = device.ask(messageType="ping")
    assert (reply["status"], reply["error"]) == (401, "Invalid Command")
    assert reply["reason"] == "Client sent too many pings"
    assert device.close_code() == 1000


def test_an_unknown_uaid_with_channels_gets_a_fresh_one(farm: Farm) -> None:
    unknown = new_channel()
    with Device(farm) as device:
        device.hello(unknown, (new_channel(),))
        assert device.uaid != unknown
    with Device(farm) as device:
        device.hello(unknown)
        assert device.uaid == unknown


def test_pages_of_pushgo(farm: Farm, device: Device) -> None:
    _, endpoint = device.register()
    assert put(endpoint, 1) == 200
    status = curl(farm.url("/status/"))
    assert status.status == 200
    assert status.json()["status"] == "OK"
    # Of several routers each knows of its own devices.
    assert status.json()["clients"] >= (len(farm.status()["routers"]) == 1)
    real = curl(farm.url("/realstatus/")).json()
    assert real["ok"] is True
    assert {plugin["name"]: plugin["ok"] for plugin in real["plugins"]} == {"store": True, "router": True}
    until(lambda: curl(farm.url("/metrics/")).json()["counter.updates.client.hello"] > 0, "a worker's beat")
    numbers = curl(farm.url("/metrics/")).json()
    assert numbers["counter.updates.appserver.received"] > 0
    assert all(isinstance(number, int | float) for number in numbers.values())
    assert curl("--request", "POST", farm.url("/status/")).status == 405
    head = curl("--head", farm.url("/status/"))
    assert (head.status, head.body) == (200, b"")


def test_what_pushes_and_hellos_took_is_measured(farm: Farm, device: Device) -> None:
    def numbers() -> dict[str, float]:
        page = farm.admin("/metrics")[1].decode()
        return {
            name: sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))
            for name in (
                *(f"farm_router_{what}_seconds_count" for what in ("push_delivered", "push_stored", "store_commit")),
                "farm_router_push_delivered_seconds_sum",
                "farm_worker_hello_seconds_count",
                "farm_cpu_seconds_total",
            )
        }

    before = numbers()
    _, endpoint = device.register()
    assert put(endpoint, 1) == 200
    device.socket.close()
    until(lambda: put(endpoint, 2) == 202, "the device has gone")
    after = numbers()
    assert after["farm_router_push_delivered_seconds_count"] >= before["farm_router_push_delivered_seconds_count"] + 1
    assert after["farm_router_push_stored_seconds_count"] >= before["farm_router_push_stored_seconds_count"] + 1
    assert after["farm_router_store_commit_seconds_count"] > before["farm_router_store_commit_seconds_count"]
    assert after["farm_router_push_delivered_seconds_sum"] > before["farm_router_push_delivered_seconds_sum"]
    assert after["farm_cpu_seconds_total"] > 0
    until(lambda: numbers()["farm_worker_hello_seconds_count"] > 0, "a worker's beat")


def test_token_keys(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", workers=1) as farm:
        key_file = farm.data / "token.key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert farm.data.stat().st_mode & 0o777 == 0o700
        made = key_file.read_text().strip()
        with Device(farm) as device:
            device.hello()
            channel, old_endpoint = device.register()
        farm.stop()

        # A new key before the old one: endpoints given out earlier go on working.
        fresh = new_key()
        farm.settings["token.keys"] = f"{fresh},{made}"
        farm.start()
        with Device(farm) as again:
            again.hello(device.uaid, (channel,))
            assert again.uaid == device.uaid
            _, new_endpoint = again.register(channel)
            assert put(old_endpoint, 1) == 200
            assert put(new_endpoint, 2) == 200
            assert [again.updates(), again.updates()] == [[(channel, 1)], [(channel, 2)]]
        farm.stop()

        # Without the old key they are nothing any more.
        farm.settings["token.keys"] = fresh
        farm.start()
        assert put(old_endpoint, 3) == 404
        assert put(new_endpoint, 3) == 202
