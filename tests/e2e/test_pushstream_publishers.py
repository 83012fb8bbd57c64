"""Publishers of push stream against a whole farm, by curl; subscribers by websocket-client."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from xml.etree import ElementTree

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, curl, running_farm, until

from router.dialects.pushstream.names import SPACE
from router.dialects.pushstream.protocol import channel_address

SETTINGS = {
    "dialects.pushstream": True,
    "pushstream.events_channel_id": "events",
    "pushstream.allow_connections_to_events_channel": True,
    "pushstream.wildcard_channel_prefix": "all_",
    "pushstream.channel_inactivity_time": 1,
}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("publishers") / "data", SETTINGS) as farm:
        yield farm


def publish(farm: Farm, channel: str, text: str = "text", *arguments: str) -> Any:
    """The numbers of the channel afterwards."""
    answer = curl(*arguments, "--data-binary", text, farm.url(f"/pub?id={channel}"))
    assert answer.status == 200
    return answer.json()


def info(farm: Farm, channel: str) -> tuple[int, int, int] | None:
    """Published, stored and subscribers."""
    answer = curl(farm.url(f"/pub?id={channel}"))
    if answer.status == 404:
        return None
    told = answer.json()
    return told["published_messages"], told["stored_messages"], told["subscribers"]


def statistics(farm: Farm, query: str = "", *arguments: str) -> HttpAnswer:
    answer = curl(*arguments, farm.url(f"/channels-stats{query}"))
    assert answer.status == 200
    return answer


class Subscriber:
    """A WebSocket."""

    def __init__(self, farm: Farm, path: str) -> None:
        self.socket = websocket.create_connection(f"{farm.device_url}ws/{path}", timeout=PATIENCE_S)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def message(self) -> Any:
        return json.loads(self.socket.recv())

    def closed(self) -> bytes:
        """Waits for it. Returns: what the close frame holds."""
        opcode, data = self.socket.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        found: bytes = data
        return found


@contextmanager
def subscribed(farm: Farm, path: str, number: int, others: int = 0) -> Iterator[Sequence[Subscriber]]:
    """So many, on both workers, once all are counted, with so many others."""
    with ExitStack() as stack:
        subscribers = [stack.enter_context(Subscriber(farm, path)) for _ in range(number)]
        name = path.partition("?")[0]
        until(lambda: (info(farm, name) or (0, 0, 0))[2] == number + others, "all are subscribed")
        yield subscribers


def stored_of(farm: Farm, channel: str) -> tuple[int, int, int]:
    """Rows of the store about a channel: its events, its log, records that name it."""
    key = base64.b64encode(channel_address(channel)).decode()
    events = logs = 0
    values: list[tuple[str]] = []
    for file in (*farm.data.glob("store.sqlite3"), *farm.data.glob("store-*/router-*.sqlite3")):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as store:
            events += store.execute("SELECT count(*) FROM event WHERE channel = ?", (key,)).fetchone()[0]
            logs += store.execute("SELECT count(*) FROM head WHERE channel = ?", (key,)).fetchone()[0]
            values += store.execute("SELECT value FROM record WHERE space = ?", (SPACE,)).fetchall()
    return events, logs, sum(channel in json.loads(base64.b64decode(value)) for (value,) in values)


def test_a_message_reaches_its_subscribers_with_its_id_and_type(farm: Farm) -> None:
    with Subscriber(farm, "news") as subscriber:
        until(lambda: info(farm, "news"), "it is subscribed")
        told = publish(farm, "news", 'say "hi" \u20ac', "--header", "Event-Id: e1", "--header", "Event-Type: greeting")
        assert told == {"channel": "news", "published_messages": 1, "stored_messages": 1, "subscribers": 1}
        message = subscriber.message()
        assert (message["id"], message["channel"], message["text"]) == (1, "news", 'say "hi" \u20ac')
        assert message["eventid"] == "e1"
        put = curl("--request", "PUT", "--data-binary", "two", farm.url("/pub?id=/news/other"))
        assert [one["channel"] for one in put.json()["infos"]] == ["news", "other"]
        second = subscriber.message()
        assert (second["id"], second["text"]) == (2, "two")
        assert int(second["tag"]) > int(message["tag"]) or second["time"] != message["time"]


def test_what_is_refused_says_why(farm: Farm) -> None:
    explain = "x-nginx-pushstream-explain"
    empty = curl("--request", "POST", farm.url("/pub?id=a"))
    assert (empty.status, empty.headers[explain]) == (400, "Empty post requests are not allowed.")
    nameless = curl("--data-binary", "x", farm.url("/pub?id="))
    assert (nameless.status, nameless.headers[explain]) == (400, "No channel id provided.")
    reserved = curl("--data-binary", "x", farm.url("/pub?id=ALL"))
    assert (reserved.status, reserved.headers[explain]) == (403, "Channel id not authorized for this method.")
    unknown = curl(farm.url("/pub?id=unknown"))
    assert (unknown.status, unknown.headers["content-length"]) == (404, "0")
    wrong = curl("--request", "PATCH", farm.url("/pub?id=a"))
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, POST, PUT, DELETE")
    assert curl("--request", "OPTIONS", farm.url("/pub?id=a")).status == 200
    proxied = curl("--header", "X-Forwarded-For: 192.0.2.1", farm.url("/channels-stats"))
    assert proxied.status == 403
    assert b"pushstream.admin_key" in proxied.body


def test_statistics_count_the_subscribers_of_all_workers(farm: Farm) -> None:
    publish(farm, "all_counted")
    with subscribed(farm, "counted", 24):
        one = statistics(farm, "?id=counted")
        assert one.headers["content-type"] == "application/json"
        assert one.json() == {"channel": "counted", "published_messages": 0, "stored_messages": 0, "subscribers": 24}
        summary = statistics(farm).json()
        assert summary["subscribers"] == 24
        assert summary["wildcard_channels"] == 1
        workers = {row["pid"]: row["subscribers"] for row in summary["by_worker"]}
        assert set(workers) == {str(farm.worker_pid(shard)) for shard in range(2)}
        assert sum(workers.values()) == 24
        assert all(workers.values()), "none of 24 connections came to one of two workers"
        listed = {row["channel"]: row for row in statistics(farm, "?id=ALL").json()["infos"]}
        assert listed["counted"]["subscribers"] == 24
        assert listed["all_counted"]["stored_messages"] == 1
        prefix = statistics(farm, "?id=coun*", "--header", "Accept: text/plain")
        assert prefix.headers["content-type"] == "text/plain"
        assert (
            b"channel: counted\r\npublished_messages: 0\r\nstored_messages: 0\r\nactive_subscribers: 24" in prefix.body
        )
        xml = statistics(farm, "", "--header", "Accept: application/xml")
        assert ElementTree.fromstring(xml.body).findtext("subscribers") == "24"
        yaml = statistics(farm, "?id=counted", "--header", "Accept: application/yaml")
        assert b"  subscribers: 24\r\n" in yaml.body
    until(lambda: info(farm, "counted") is None, "it is forgotten after its subscribers")


def test_a_deleted_channel_ends_on_every_worker(farm: Farm) -> None:
    publish(farm, "doomed")
    assert stored_of(farm, "doomed") == (1, 1, 1)
    with Subscriber(farm, "doomed/spared") as other, subscribed(farm, "doomed", 11, 1) as subscribers:
        answer = curl("--request", "DELETE", "--data-binary", "the end", farm.url("/pub?id=doomed"))
        assert (answer.status, answer.body) == (200, b"")
        for subscriber in subscribers:
            message = subscriber.message()
            assert (message["id"], message["text"]) == (-2, "the end")
            assert subscriber.closed() == b""
        assert other.message()["text"] == "the end"
        until(lambda: info(farm, "doomed") is None, "the other has left it")
        publish(farm, "spared", "more")
        assert other.message()["text"] == "more"
        assert curl("--request", "DELETE", farm.url("/pub?id=doomed")).status == 404
    assert stored_of(farm, "doomed") == (0, 0, 0)
    assert publish(farm, "doomed")["published_messages"] == 1


def test_the_events_channel_tells_of_channels_and_clients(farm: Farm) -> None:
    def told() -> tuple[str, str]:
        found = json.loads(events.message()["text"])
        return found["type"], found["channel"]

    with Subscriber(farm, "events") as events:
        until(lambda: (info(farm, "events") or (0, 0, 0))[2] == 1, "it is subscribed")
        with Subscriber(farm, "told") as subscriber:
            assert told() == ("channel_created", "told")
            assert told() == ("client_subscribed", "told")
            subscriber.socket.close()
        assert told() == ("client_unsubscribed", "told")
        assert told() == ("channel_destroyed", "told")
        refused = curl("--data-binary", "x", farm.url("/pub?id=events"))
        assert refused.status == 403


def test_after_a_kill_of_the_router_what_was_accepted_is_there(farm: Farm) -> None:
    for number in range(5):
        publish(farm, "kept", f"text {number}")
    os.kill(farm.router_pid(), signal.SIGKILL)
    farm.wait_healthy()
    assert info(farm, "kept") == (5, 5, 0)
    assert publish(farm, "kept", "text 5")["published_messages"] == 6
    with Subscriber(farm, "kept.b9") as subscriber:
        found = [subscriber.message() for _ in range(6)]
    assert [(one["id"], one["text"]) for one in found] == [(number + 1, f"text {number}") for number in range(6)]


def test_a_position_is_one_after_a_restart_of_the_whole_farm(farm: Farm) -> None:
    publish(farm, "place", "before")
    publish(farm, "place", "last")
    with Subscriber(farm, "place.b9") as subscriber:
        assert subscriber.message()["text"] == "before"
        had = subscriber.message()
    farm.stop()
    farm.start()
    until(lambda: "place" in statistics(farm, "?id=ALL").body.decode(), "the names of channels are read")
    publish(farm, "place", "after")
    query = f"time={had['time'].replace(' ', '%20')}&tag={had['tag']}&eventid="
    with Subscriber(farm, f"place?{query}") as subscriber:
        message = subscriber.message()
        assert (message["text"], message["id"]) == ("after", 3)


def test_with_a_key_only_who_has_it_publishes_and_it_is_in_no_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    key = "the-key-of-this-test"
    settings = SETTINGS | {
        "pushstream.admin_key": key,
        "pushstream.store_messages": False,
        "pushstream.one_port": True,
    }
    with running_farm(tmp_path_factory.mktemp("keyed") / "data", settings, workers=1) as farm:
        for port in (farm.router_port, farm.device_port):
            path = f"http://127.0.0.1:{port}"
            assert curl("--data-binary", "x", f"{path}/pub?id={port}").status == 403
            bearer = curl("--oauth2-bearer", key, "--data-binary", "x", f"{path}/pub?id={port}")
            told = {"channel": str(port), "published_messages": 1, "stored_messages": 0, "subscribers": 0}
            assert bearer.json() == told
            assert curl(f"{path}/channels-stats?id={port}&admin_key={key}").json() == told
        log = farm.log_file
    assert key not in log.read_text()
