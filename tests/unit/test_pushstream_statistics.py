"""Statistics of push stream: what is told of one channel, of several and of all, and in which format."""

import json
import time
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from support.common import Rig, in_rig
from support.pushstream_app import STATISTICS, PushApp

from router.common import messages as m
from router.dialects.pushstream.formats import ChannelInfo, Head, Summary, WorkerInfo, format_of
from router.dialects.pushstream.protocol import channel_address

HEAD = Head("push.example", "2026-11-26T05:34:31", 2, 1, 77)
INFOS = (ChannelInfo("a", 3, 2, 1), ChannelInfo('x"<&', 0, 0, 5))
SUMMARY = Summary(3, 2, 6, (WorkerInfo(4000, 2, 7), WorkerInfo(4001, 4, 8)))
JSON_SUMMARY = {
    "hostname": "push.example",
    "time": "2026-11-26T05:34:31",
    "channels": 2,
    "wildcard_channels": 1,
    "published_messages": 3,
    "stored_messages": 2,
    "messages_in_trash": 0,
    "channels_in_delete": 0,
    "channels_in_trash": 0,
    "subscribers": 6,
    "uptime": 77,
    "by_worker": [
        {"pid": "4000", "subscribers": 2, "uptime": 7},
        {"pid": "4001", "subscribers": 4, "uptime": 8},
    ],
}


# ---------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (b"", "application/json"),
        (b"*/*", "application/json"),
        (b"text/plain", "text/plain"),
        (b"application/json", "application/json"),
        (b"application/yaml", "application/yaml"),
        (b"Application/XML;q=0.9", "application/xml"),
        (b"text/x-json", "text/x-json"),
        (b"text/x-yaml", "text/x-yaml"),
        (b"text/html, application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/xml"),
        (b"\xff/\xff", "application/json"),
    ],
)
def test_the_format_is_the_first_that_is_known(accept: bytes, content_type: str) -> None:
    assert format_of(accept)[0] == content_type


def test_json() -> None:
    form = format_of(b"")[1]
    assert form.one(INFOS[0]) == (
        '{"channel": "a", "published_messages": 3, "stored_messages": 2, "subscribers": 1}\r\n'
    )
    group = json.loads(form.group(HEAD, map(form.item, INFOS)))
    assert list(group) == ["hostname", "time", "channels", "wildcard_channels", "uptime", "infos"]
    assert group["infos"] == [info._asdict() for info in INFOS]
    assert json.loads(form.group(HEAD, ()))["infos"] == []
    summary = form.summary(HEAD, SUMMARY)
    assert json.loads(summary) == JSON_SUMMARY
    assert list(json.loads(summary)) == list(JSON_SUMMARY)


def test_plain_text() -> None:
    form = format_of(b"text/plain")[1]
    one = "channel: a\r\npublished_messages: 3\r\nstored_messages: 2\r\nactive_subscribers: 1"
    assert form.one(INFOS[0]) == one + "\r\n"
    assert form.group(HEAD, map(form.item, INFOS[:1] * 2)) == (
        "hostname: push.example, time: 2026-11-26T05:34:31, channels: 2, wildcard_channels: 1, uptime: 77, infos: \r\n"
        f"{one},\r\n{one}\r\n"
    )
    assert form.summary(HEAD, SUMMARY).endswith(
        "subscribers: 6\r\nuptime: 77\r\nby_worker:\r\n"
        "  pid: 4000\r\n  subscribers: 2\r\n  uptime: 7,\r\n  pid: 4001\r\n  subscribers: 4\r\n  uptime: 8\r\n"
    )


def test_yaml() -> None:
    form = format_of(b"application/yaml")[1]
    assert (
        form.one(INFOS[0]) == "  channel: a\r\n  published_messages: 3\r\n  stored_messages: 2\r\n  subscribers: 1\r\n"
    )
    group = form.group(HEAD, map(form.item, (*INFOS, ChannelInfo("no", 0, 0, 0), ChannelInfo("1", 0, 0, 0))))
    assert group.startswith('hostname: "push.example"\r\ntime: "2026-11-26T05:34:31"\r\nchannels: 2\r\n')
    assert " -\r\n  channel: a\r\n  published_messages: 3\r\n" in group
    assert [line for line in group.split("\r\n") if "channel: " in line] == [
        "  channel: a",
        '  channel: "x\\"<&"',
        '  channel: "no"',
        '  channel: "1"',
    ]
    summary = form.summary(HEAD, SUMMARY)
    assert "\r\n  by_worker:\r\n   -\r\n    pid: 4000\r\n    subscribers: 2\r\n    uptime: 7\r\n   -\r\n" in summary


def test_xml() -> None:
    form = format_of(b"application/xml")[1]
    one = ElementTree.fromstring(form.one(INFOS[1]))
    assert [(part.tag, part.text) for part in one] == [
        ("name", 'x"<&'),
        ("published_messages", "0"),
        ("stored_messages", "0"),
        ("subscribers", "5"),
    ]
    group = ElementTree.fromstring(form.group(HEAD, map(form.item, INFOS)))
    assert (group.tag, group.findtext("uptime"), len(group.findall("infos/channel"))) == ("root", "77", 2)
    summary = ElementTree.fromstring(form.summary(HEAD, SUMMARY))
    assert [worker.findtext("pid") for worker in summary.findall("by_worker/worker")] == ["4000", "4001"]
    assert summary.findtext("channels_in_delete") == "0"


# ---------------------------------------------------------------------- numbers


@in_rig()
async def test_a_channel_and_several(rig: Rig) -> None:
    app = PushApp(rig)
    app.subscribe("a", "c")
    await app.publish("a")
    assert await app.statistics("?id=a") == {
        "channel": "a",
        "published_messages": 1,
        "stored_messages": 1,
        "subscribers": 1,
    }
    several = await app.statistics("?id=a/x/c")
    assert [info["channel"] for info in several["infos"]] == ["a", "c"]
    for query in ("?id=x", "?id=x/y"):
        assert await app.refused("GET", STATISTICS + query) == (404, "")
    answer = await app.call("GET", STATISTICS + "?id=a", accept="text/plain")
    assert (answer.content_type, answer.body[:10]) == ("text/plain", b"channel: a")
    assert dict(answer.headers)["X-Nginx-PushStream-Tag"]
    assert dict(answer.headers)["X-Nginx-PushStream-Commit"]


@in_rig()
async def test_all_and_a_prefix(rig: Rig) -> None:
    app = PushApp(rig, wildcard_channel_prefix="all_", max_messages_stored_per_channel=2)
    app.subscribe("live", "pre_live")
    for channel in ("pre_a", "pre_b", "all_x", "pre_a", "pre_a"):
        await app.publish(channel)
    everything = await app.statistics("?id=ALL")
    assert list(everything) == ["hostname", "time", "channels", "wildcard_channels", "uptime", "infos"]
    assert (everything["channels"], everything["wildcard_channels"]) == (4, 1)
    found = {info["channel"]: tuple(info.values())[1:] for info in everything["infos"]}
    assert found == {
        "live": (0, 0, 1),
        "pre_live": (0, 0, 1),
        "pre_a": (3, 2, 0),
        "pre_b": (1, 1, 0),
        "all_x": (1, 1, 0),
    }
    some = await app.statistics("?id=pre_*")
    assert {info["channel"] for info in some["infos"]} == {"pre_live", "pre_a", "pre_b"}
    assert (await app.statistics("?id=none*"))["infos"] == []
    assert await app.refused("GET", STATISTICS + "?id=pre_*/a") == (403, "Channel id not authorized for this method.")
    local = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(rig.clock.unix()))
    assert everything["time"] == local


@in_rig()
async def test_not_all_names_are_gone_through_for_each_publisher(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    app = PushApp(rig, wildcard_channel_prefix="all_")
    walks = []
    all_names = app.state.all_names

    def walked() -> Iterator[str]:
        walks.append(rig.clock.unix())
        return all_names()

    monkeypatch.setattr(app.state, "all_names", walked)
    await app.publish("all_x")
    for _ in range(3):
        told = await app.publish("a/b")
        assert (told["channels"], told["wildcard_channels"]) == (2, 1)
    assert len(walks) == 1
    await app.publish("all_y")
    assert (await app.publish("a/b"))["wildcard_channels"] == 1
    assert (await app.statistics())["wildcard_channels"] == 2
    await app.publish("all_z")
    rig.clock.pass_by(10)
    told = await app.publish("a/b")
    assert (told["channels"], told["wildcard_channels"]) == (2, 3)


@in_rig()
async def test_the_summary_counts_all_workers(rig: Rig) -> None:
    app = PushApp(rig, message_ttl=50)
    first, second = app.subscribe("a", "b"), app.subscribe("a", shard=1)
    first.count("a", 10)
    for channel in ("a", "b", "b"):
        await app.publish(channel)
    rig.clock.pass_by(20)
    summary = await app.statistics()
    assert {name: summary[name] for name in summary if name not in ("hostname", "time")} == {
        "channels": 2,
        "wildcard_channels": 0,
        "published_messages": 3,
        "stored_messages": 3,
        "messages_in_trash": 0,
        "channels_in_delete": 0,
        "channels_in_trash": 0,
        "subscribers": 12,
        "uptime": 20,
        "by_worker": [
            {"pid": "4000", "subscribers": 11, "uptime": 7},
            {"pid": "4001", "subscribers": 1, "uptime": 7},
        ],
    }
    rig.clock.pass_by(40)
    assert (await app.statistics())["stored_messages"] == 0
    second.leave("a")
    assert (await app.statistics())["subscribers"] == 11


@in_rig()
async def test_numbers_of_subscribers_are_asked_for(rig: Rig) -> None:
    """What the workers have not told yet is told before an answer."""
    app = PushApp(rig)
    listener = app.subscribe("a")
    for path in ("/pub?id=a", STATISTICS + "?id=a", STATISTICS + "?id=ALL", STATISTICS):
        answers = app.ask("GET", path)
        await rig.settle()
        await app.have_turns()
        assert answers == []
        listener.worker.tell_counts(m.Counted(channel_address("a"), 7))
        await app.have_turns()
        await rig.settle()
        assert b'"subscribers": 7' in answers[0].body
        listener.count("a", 1)


@in_rig()
async def test_an_answer_about_very_many_channels_is_made_in_pieces_and_one_at_a_time(rig: Rig) -> None:
    app = PushApp(rig)
    for number in range(2500):
        app.ask("POST", f"/pub?id=c{number}", "x")
    await rig.settle()
    first, second = app.ask("GET", STATISTICS + "?id=ALL"), app.ask("GET", STATISTICS)
    turns = []
    while not second:
        app.turns.run()
        await rig.settle()
        turns.append(len(first))
    assert turns.count(0) >= 3
    assert turns.count(1) >= 3
    assert len(json.loads(first[0].body)["infos"]) == 2500
    assert json.loads(second[0].body)["stored_messages"] == 2500


@pytest.mark.parametrize("path", ["/pub?id=a", STATISTICS + "?id=a", STATISTICS + "?id=ALL", STATISTICS])
def test_a_store_that_cannot_be_read(path: str) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        app = PushApp(rig)
        await app.publish("a")
        rig.store.failing = True
        assert await app.refused("GET", path) == (503, "The store could not be read.")

    scenario()


def test_only_get_is_understood() -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        app = PushApp(rig)
        for method in ("POST", "PUT", "DELETE", "HEAD"):
            answer = await app.call(method, STATISTICS)
            assert (answer.status, ("Allow", "GET") in answer.headers) == (405, True)

    scenario()


@in_rig()
async def test_a_publisher_that_is_alone_waits_until_subscribers_are_counted(rig: Rig) -> None:
    app = PushApp(rig)
    listener = app.subscribe("a")
    first, second = (app.ask("POST", "/pub?id=a", "text") for _ in range(2))
    await rig.settle()
    assert first == []
    assert [json.loads(answer.body)["subscribers"] for answer in second] == [1]
    assert listener.worker.tell_counts(m.Counted(channel_address("a"), 7)) == 1
    assert [json.loads(answer.body)["subscribers"] for answer in first] == [7]
