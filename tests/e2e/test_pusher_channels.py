"""Pusher's channels over two workers: events, client events, and the last event of a cache channel."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.farm_fixture import Farm, running_farm, until
from support.pusher import (
    CRASH,
    KEY,
    Client,
    call,
    clients,
    new_name,
    nothing_before_now,
    router_is_another,
    signed,
    trigger,
    with_apps,
)

CLIENTS = 12
ROUNDS = 20


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


def test_an_event_comes_once_to_every_subscriber_of_both_shards(farm: Farm) -> None:
    channel, other = new_name(), new_name()
    with clients(farm, 6) as there, Client(farm) as elsewhere, Client(farm, "other-key") as stranger:
        for client in there:
            client.subscribe(channel)
        elsewhere.subscribe(other)
        stranger.subscribe(channel)  # the same name, of another application
        trigger(farm, [channel, other], "news", {"n": 1})
        trigger(farm, channel, "news", {"n": 2}, socket_id=there[0].socket_id)
        trigger(farm, channel, "news", {"n": 3})
        for client in there:
            expected = [1, 3] if client is there[0] else [1, 2, 3]
            assert [client.expect("news", channel)["n"] for _ in expected] == expected
        assert elsewhere.expect("news", other) == {"n": 1}
        nothing_before_now(farm, other, elsewhere)
        stranger.send("pusher:ping")
        stranger.expect("pusher:pong")


def test_who_has_unsubscribed_hears_nothing(farm: Farm) -> None:
    channel, other = new_name(), new_name()
    with Client(farm) as client:
        client.subscribe(channel)
        client.subscribe(other)
        client.send("pusher:unsubscribe", {"channel": channel})
        client.send("pusher:ping")
        client.expect("pusher:pong")
        trigger(farm, channel, "news", 1)
        nothing_before_now(farm, other, client)
        client.subscribe(channel)
        nothing_before_now(farm, channel, client)


def test_a_private_channel_lets_in_who_is_vouched_for(farm: Farm) -> None:
    channel = new_name("private-")
    with Client(farm) as client:
        client.send("pusher:subscribe", {"channel": channel, "auth": f"{KEY}:{signed('x')}"})
        told = client.expect("pusher:subscription_error", channel)
        assert (told["type"], told["status"]) == ("AuthError", 401)
        client.subscribe(channel)
        nothing_before_now(farm, channel, client)


def test_a_subscriber_that_does_not_read_is_in_nobodys_way(tmp_path: Path) -> None:
    settings = with_apps(tmp_path) | {"worker.write_buffer_bytes": 65_536}
    channel, text = new_name(), "x" * 10_000
    with running_farm(tmp_path / "data", settings, workers=1) as farm, Client(farm) as reads:
        lazy = Client(farm, receive_buffer=4096)
        for client in (reads, lazy):
            client.subscribe(channel)
        batch = [{"name": "long", "channel": channel, "data": json.dumps(text)}] * 10
        for _ in range(200):
            assert call(farm, "POST", "/batch_events", {"batch": batch}).status == 200
            assert all(reads.expect("long", channel) == text for _ in batch)
            if farm.counter("slow_closed"):
                break
        until(lambda: farm.counter("slow_closed") == 1, "the one that does not read is closed")
        nothing_before_now(farm, channel, reads)
        lazy.socket.shutdown()


def test_encrypted_data_is_handed_on_as_it_is(farm: Farm) -> None:
    channel = new_name("private-encrypted-")
    with Client(farm) as client:
        client.subscribe(channel)
        trigger(farm, channel, "secret", {"nonce": "AAAA", "ciphertext": "BBBB"})
        assert client.expect("secret", channel) == {"nonce": "AAAA", "ciphertext": "BBBB"}


def test_client_events_go_to_the_others_on_both_shards(farm: Farm) -> None:
    channel = new_name("private-")
    with clients(farm, 4) as there:
        for client in there:
            client.subscribe(channel)
        there[0].send("client-moved", {"x": 1}, channel)
        for client in there[1:]:
            assert client.expect("client-moved", channel) == {"x": 1}
        nothing_before_now(farm, channel, *there)


def test_too_many_client_events_are_rejected_and_no_more(farm: Farm) -> None:
    channel = new_name("private-")
    with Client(farm) as client:
        client.subscribe(channel)
        for _ in range(200):
            client.send("client-moved", {"x": 1}, channel)
        assert client.expect("pusher:error")["code"] == 4301
        client.send("pusher:ping")
        while client.event()["event"] == "pusher:error":
            pass


def test_a_cache_channel_tells_the_last_event_to_who_comes_later(farm: Farm) -> None:
    channel = new_name("private-cache-")
    with clients(farm, 4) as there:
        for client in there[:2]:
            client.subscribe(channel)
            client.expect("pusher:cache_miss", channel)
        trigger(farm, channel, "price", {"is": 1})
        trigger(farm, channel, "price", {"is": 2})
        for client in there[:2]:
            assert [client.expect("price", channel)["is"] for _ in range(2)] == [1, 2]
        there[0].send("client-moved", {}, channel)
        there[1].expect("client-moved", channel)
        for client in there[2:]:
            client.subscribe(channel)
            assert client.expect("price", channel) == {"is": 2}


def test_who_comes_while_events_do_hears_each_once_and_in_order(farm: Farm) -> None:
    channel = new_name("cache-")
    number = itertools.count()
    stopped = threading.Event()

    def send() -> None:
        while not stopped.is_set():
            events = [{"name": "price", "channel": channel, "data": str(next(number))} for _ in range(10)]
            assert call(farm, "POST", "/batch_events", {"batch": events}).status == 200

    def come_and_go(client: Client) -> None:
        for _ in range(ROUNDS):
            client.subscribe(channel)
            first = client.expect("price", channel)
            assert [client.expect("price", channel) for _ in range(15)] == list(range(first + 1, first + 16))
            client.send("pusher:unsubscribe", {"channel": channel})
            client.send("pusher:ping", {})
            while client.event()["event"] != "pusher:pong":
                pass

    with clients(farm, CLIENTS) as there, ThreadPoolExecutor(CLIENTS + 1) as threads:
        trigger(farm, channel, "price", next(number))
        sender = threads.submit(send)
        try:
            for done in [threads.submit(come_and_go, client) for client in there]:
                done.result()
        finally:
            stopped.set()
        sender.result()


def test_a_last_event_outlives_the_router(mortal: Farm) -> None:
    channel = new_name("cache-")
    trigger(mortal, channel, "price", {"is": 1})
    os.kill(mortal.router_pid(), signal.SIGKILL)
    router_is_another(mortal)
    with Client(mortal) as client:
        client.subscribe(channel)
        assert client.expect("price", channel) == {"is": 1}
