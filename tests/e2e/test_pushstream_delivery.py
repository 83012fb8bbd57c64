"""Push stream in a whole farm: every mode by clients that are not ours, and nothing lost where a client comes again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.farm_fixture import PATIENCE_S, Farm, curl, reload, running_farm, until
from support.installed import find_program
from support.pushstream import (
    CRASH,
    ON,
    Poller,
    Socket,
    Stream,
    device_url,
    new_channel,
    publish,
    reached,
    subscribers,
)

POLLING = ("--header", "X-Nginx-PushStream-Mode: polling")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    more = {
        "pushstream.websocket_allow_publish": True,
        "pushstream.max_subscribers_per_channel": 3,
        "pushstream.allowed_origins": "https://www.example.org",
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", ON | CRASH | more) as found:
        yield found


def curl_of(*arguments: str) -> subprocess.Popen[bytes]:
    """A curl whose output is read while it runs."""
    command = (find_program("curl"), "--silent", "--show-error", "--max-time", f"{PATIENCE_S:g}", "--noproxy", "*")
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE)


def texts(body: bytes) -> list[str]:
    """Of the messages in the answer to a poll: JSON objects, one behind the other."""
    found, rest = [], body.decode()
    while rest:
        message, end = json.JSONDecoder().raw_decode(rest)
        found.append(message["text"])
        rest = rest[end:]
    return found


@pytest.mark.parametrize("path", ["sub/", "sub?channels="])
def test_curl_reads_a_stream(farm: Farm, path: str) -> None:
    name = new_channel()
    publish(farm, name, "one")
    publish(farm, name, "two")
    with curl_of("--no-buffer", device_url(farm, f"{path}{name}.b2")) as reader:
        assert reader.stdout is not None
        assert [json.loads(reader.stdout.readline())["text"] for _ in range(2)] == ["one", "two"]
        publish(farm, name, "four")
        assert json.loads(reader.stdout.readline())["text"] == "four"
        assert curl("--request", "DELETE", farm.url(f"/pub?id={name}")).status == 200
        last = json.loads(reader.stdout.readline())
        assert (last["id"], last["text"], last["channel"]) == (-2, "Channel deleted", name)
        assert reader.stdout.read() == b""
        assert reader.wait(PATIENCE_S) == 0


def test_curl_polls(farm: Farm) -> None:
    one, other = new_channel(), new_channel()
    poller = Poller(farm, f"lp/{one}/{other}")
    assert Poller(farm, f"lp/{one}", *POLLING).poll().status == 304
    with ThreadPoolExecutor(1) as threads:
        for text, name in (("a", one), ("b", other), ("c", one)):
            polled = threads.submit(poller.poll)
            until(lambda name=name: subscribers(farm, name) == 1, "the poll waits")  # type: ignore[misc]
            publish(farm, name, text)
            assert texts(polled.result().body) == [text]
    publish(farm, other, "d")
    publish(farm, one, "e")
    publish(farm, other, "f")
    assert texts(poller.poll().body) == ["d", "e", "f"]


def test_a_position_outlives_every_process(tmp_path: Path) -> None:
    one, other = new_channel(), new_channel()
    with running_farm(tmp_path / "data", ON | CRASH) as farm:
        publish(farm, one, "before")
        poller = Poller(farm, f"lp/{one}/{other}", *POLLING)
        assert poller.poll().status == 304
        with Stream(farm, f"ev/{one}.b1/{other}") as source, Socket(farm, f"ws/{one}.b1/{other}") as socket:
            assert source.event().message["text"] == "before"
            last = socket.message()
            os.kill(farm.worker_pid(0), signal.SIGKILL)
            publish(farm, other, "while a worker was away", Event_Id="mine")
            os.kill(farm.router_pid(), signal.SIGKILL)
            farm.wait_healthy()
            publish(farm, one, "after")
            farm.kill()
        farm.start()
        publish(farm, other, "another day")
        expected = ["while a worker was away", "after", "another day"]
        assert texts(poller.poll().body) == expected
        assert poller.poll().status == 304
        with Stream(farm, f"ev/{one}.b1/{other}", Last_Event_ID=source.last_id) as again:
            found = [again.event() for _ in expected]
            assert [event.message["text"] for event in found] == expected
            assert found[0].id == "mine"
        place = f"time={last['time'].replace(' ', '%20')}&tag={last['tag']}&eventid="
        with Socket(farm, f"ws/{one}/{other}?{place}") as socket:
            assert [socket.message()["text"] for _ in expected] == expected


def test_a_reload_answers_long_polls_where_they_stand(farm: Farm) -> None:
    name = new_channel()
    publish(farm, name, "known")
    poller = Poller(farm, f"lp/{name}")
    with curl_of("--include", device_url(farm, f"lp/{name}")) as waiting:
        until(lambda: subscribers(farm, name) == 1, "it waits")
        reload(farm)
        assert waiting.stdout is not None
        head = waiting.stdout.read().decode()
    assert head.startswith("HTTP/1.1 304 ")
    headers = dict(line.partition(": ")[::2] for line in head.lower().splitlines())
    place = (f"If-Modified-Since: {headers['last-modified']}", f"If-None-Match: {headers['etag']}")
    publish(farm, name, "new")
    poller = Poller(farm, f"lp/{name}", *(part for header in place for part in ("--header", header)))
    assert texts(poller.poll().body) == ["new"]


def test_a_websocket_publishes_to_its_channels(farm: Farm) -> None:
    one, other = new_channel(), new_channel()
    with Socket(farm, f"ws/{one}/{other}") as talker, Stream(farm, f"ev/{other}") as listener:
        talker.socket.send('what "it" says, 世界')
        assert listener.event().message["text"] == 'what "it" says, 世界'
        found = {message["channel"]: message["text"] for message in (talker.message(), talker.message())}
        assert found == dict.fromkeys((one, other), 'what "it" says, 世界')


def test_subscribers_of_a_channel_are_limited_over_all_workers(farm: Farm) -> None:
    name = new_channel()
    sockets = [Socket(farm, f"ws/{name}") for _ in range(3)]
    until(lambda: subscribers(farm, name) == 3, "they are subscribed")
    refused = curl(device_url(farm, f"ev/{name}"))
    assert (refused.status, refused.headers["x-nginx-pushstream-explain"]) == (
        403,
        "Subscribers limit per channel has been exceeded.",
    )
    assert curl(device_url(farm, f"lp/{name}")).status == 403
    with Socket(farm, f"ws/{name}") as late:
        assert late.code() == 1008
    sockets.pop().socket.shutdown()

    def fits() -> bool:
        with Stream(farm, f"ev/{name}") as stream:
            return stream.answer.status == 200

    until(fits, "there is room again")
    for socket in sockets:
        socket.socket.shutdown()


def test_pages_of_one_origin_may_read_answers(farm: Farm) -> None:
    for origin, allowed in (("https://www.example.org", "https://www.example.org"), ("https://example.com", None)):
        answer = curl("--header", f"Origin: {origin}", *POLLING, device_url(farm, f"lp/{new_channel()}"))
        assert answer.headers.get("access-control-allow-origin") == allowed
        asked = curl("--request", "OPTIONS", "--header", f"Origin: {origin}", device_url(farm, "lp/x"))
        assert (asked.status, asked.headers.get("access-control-allow-origin")) == (200, allowed)


def test_a_message_reaches_every_mode(farm: Farm) -> None:
    with reached(farm) as check:
        check()
