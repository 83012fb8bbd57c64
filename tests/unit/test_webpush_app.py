"""WebPush, app-server side: a push and its headers."""

import base64
import json

import pytest
from support.common import Rig, in_rig
from support.webpush_app import AES128GCM, CHID, MEMBER, OTHER_CHID, OTHER_MEMBER, POINT, URL, App, headers_of, said
from support.webpush_vapid import b64

from router.common.item import Item
from router.dialects.webpush.protocol import (
    channel_of,
    plain_slot,
    topic_slot,
)

# ---- what an answer means


@in_rig()
async def test_201_when_it_is_durable(rig: Rig) -> None:
    app = App(rig)
    await rig.settle()
    rig.store.hold()
    answers = app.post(b"secret", **AES128GCM)
    await rig.settle()
    assert answers == []
    rig.store.release()
    answer = await app.settled(answers)
    assert (answer.status, answer.body) == (201, b"")
    assert headers_of(answer)["TTL"] == "60"
    assert headers_of(answer)["Location"].startswith(URL + "/m/")
    (item,) = await app.waiting()
    assert item == Item(plain_slot(item.seq, CHID), item.seq, item.seq, int(rig.clock.unix()) + 60, 3, item.body)
    assert said(item.body) == {"data": b64(b"secret"), "headers": {"encoding": "aes128gcm"}}
    assert rig.hub.counters.pushes == 1


@in_rig()
async def test_a_device_that_is_there_gets_it_at_once_and_it_is_kept_until_the_ack(rig: Rig) -> None:
    app = App(rig)
    await rig.settle()
    listener = app.live()
    answers = app.post(b"secret", **AES128GCM)
    await rig.settle()
    ((slot, version, body),) = listener.hear()
    assert (await app.settled(answers)).status == 201
    (item,) = await app.waiting()
    assert (item.slot, item.version, item.body) == (slot, version, body)


@in_rig()
async def test_a_body_of_any_bytes_and_length_comes_in_base64url(rig: Rig) -> None:
    app = App(rig)
    bodies = [bytes(range(256)) * 4, *(bytes([255, 254, 62, 63, 251])[:length] for length in range(1, 6))]
    for body in bodies:
        answer = await app.settled(app.post(body, **AES128GCM))
        assert answer.status == 201
    assert [said(item.body)["data"] for item in await app.waiting()] == [b64(body) for body in bodies]


@in_rig()
async def test_without_a_body_there_is_nothing_to_decrypt(rig: Rig) -> None:
    app = App(rig)
    assert await app.outcome(app.post(content_encoding="nonsense", encryption="x", crypto_key="y")) == (201, None)
    (item,) = await app.waiting()
    assert item.body is None


@in_rig()
async def test_with_ttl_0_only_a_device_that_is_there_gets_it(rig: Rig) -> None:
    app = App(rig)
    await rig.settle()
    answer = await app.settled(app.post(b"x", ttl="0", **AES128GCM))
    assert (answer.status, headers_of(answer)["TTL"]) == (201, "0")
    listener = app.live()
    assert await app.outcome(app.post(b"y", ttl="0", **AES128GCM)) == (201, None)
    ((_, _, body),) = listener.hear()
    assert said(body)["data"] == b64(b"y")
    assert await app.waiting() == []


@in_rig()
async def test_messages_arrive_in_order_and_those_with_a_topic_first(rig: Rig) -> None:
    app = App(rig)
    app.register(MEMBER, OTHER_MEMBER)
    others = app.path(member=OTHER_MEMBER)
    for body, topic, path in ((b"1", None, None), (b"2", "b", None), (b"3", None, others), (b"4", "a", others)):
        more = {} if topic is None else {"topic": topic}
        app.post(body, path, **AES128GCM, **more)
    app.post(b"5", **AES128GCM)
    items = await app.waiting()
    assert [said(item.body)["data"] for item in items] == [b64(body) for body in (b"2", b"4", b"1", b"3", b"5")]
    assert [channel_of(item.slot) for item in items] == [CHID, OTHER_CHID, CHID, OTHER_CHID, CHID]


@in_rig()
async def test_a_topic_replaces_what_waits_in_its_channel(rig: Rig) -> None:
    app = App(rig)
    app.register(MEMBER, OTHER_MEMBER)
    for body in (b"1", b"2"):
        for path in (app.path(), app.path(member=OTHER_MEMBER)):
            assert await app.outcome(app.post(body, path, topic="news", **AES128GCM)) == (201, None)
    app.post(b"other", topic="News", **AES128GCM)
    found = {item.slot: said(item.body)["data"] for item in await app.waiting()}
    assert found == {
        topic_slot(CHID, "news"): b64(b"2"),
        topic_slot(OTHER_CHID, "news"): b64(b"2"),
        topic_slot(CHID, "News"): b64(b"other"),
    }


# ---- headers


@pytest.mark.parametrize(
    ("ttl", "answer"),
    [
        ("0", "0"),
        ("60", "60"),
        ("+60", "60"),
        ("0060", "60"),
        ("60 \t ", "60"),
        ("-0", "0"),
        ("+000", "0"),
        ("0" * 30 + "7", "7"),
        ("2592000", "2592000"),
        ("2592001", "2592000"),
        ("9" * 18, "2592000"),
        ("9" * 19, "2592000"),
        ("9" * 6000, "2592000"),
        ("none", 111),
        ("", 111),
        ("x", 111),
        ("60s", 111),
        ("6 0", 111),
        ("1.5", 111),
        ("1e3", 111),
        ("0x10", 111),
        ("+", 111),
        ("--1", 111),
        ("\xb2", 111),
        ("-1", 114),
        ("-0001", 114),
        ("-" + "9" * 6000, 114),
    ],
)
@in_rig()
async def test_ttl(rig: Rig, ttl: str, answer: str | int) -> None:
    app = App(rig)
    found = await app.settled(app.post(ttl=ttl))
    if isinstance(answer, int):
        assert (found.status, json.loads(found.body)["errno"]) == (400, answer)
        assert rig.hub.counters.pushes_invalid == 1
        return
    assert (found.status, headers_of(found)["TTL"]) == (201, answer)
    items = await app.waiting()
    assert [item.expires for item in items] == ([int(rig.clock.unix()) + int(answer)] if int(answer) else [])


@in_rig()
async def test_the_longest_ttl_is_a_setting(rig: Rig) -> None:
    app = App(rig, max_ttl=100)
    assert headers_of(await app.settled(app.post(ttl="101")))["TTL"] == "100"


@pytest.mark.parametrize("topic", ["a", "A-z_09", "x" * 32, "a \t "])
@in_rig()
async def test_topics(rig: Rig, topic: str) -> None:
    app = App(rig)
    assert await app.outcome(app.post(topic=topic)) == (201, None)
    (item,) = await app.waiting()
    assert item.slot == topic_slot(CHID, topic.strip())


@pytest.mark.parametrize("topic", ["", "x" * 33, "a b", "a=", "a+b", "a/b", "a:b", "a#b", "\xfc", "x" * 9000])
@in_rig()
async def test_topics_that_are_none(rig: Rig, topic: str) -> None:
    assert await App(rig).outcome(App(rig).post(topic=topic)) == (400, 113)


@pytest.mark.parametrize(
    ("urgency", "level"),
    [("very-low", 1), ("low", 2), ("normal", 3), ("high", 4), ("High", 4), ("VERY-LOW", 1), ("low ", 2)],
)
@in_rig()
async def test_urgency(rig: Rig, urgency: str, level: int) -> None:
    app = App(rig)
    assert await app.outcome(app.post(urgency=urgency)) == (201, None)
    assert [item.urgency for item in await app.waiting()] == [level]


@pytest.mark.parametrize("urgency", ["", "x", "low,high", "3", "very low", "\xfc"])
@in_rig()
async def test_urgencies_that_are_none(rig: Rig, urgency: str) -> None:
    assert await App(rig).outcome(App(rig).post(urgency=urgency)) == (400, 115)


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"content_encoding": "aes128gcm"}, {"encoding": "aes128gcm"}),
        ({"content_encoding": " AES128GCM "}, {"encoding": "aes128gcm"}),
        ({"content_encoding": "aes128gcm", "crypto_key": "p256ecdsa=AB"}, {"encoding": "aes128gcm"}),
        ({"content_encoding": "aes128gcm", "encryption": "rs=4096"}, {"encoding": "aes128gcm"}),
        (
            {"content_encoding": "aesgcm", "encryption": "salt=AB-_"},
            {"encoding": "aesgcm", "encryption": "salt=AB-_"},
        ),
        (
            {"content_encoding": "AESGCM", "encryption": "keyid=p;salt=AB", "crypto_key": "keyid=p;dh=" + POINT},
            {"encoding": "aesgcm", "encryption": "keyid=p;salt=AB", "crypto_key": "keyid=p;dh=" + POINT},
        ),
        (
            {
                "content_encoding": "aesgcm",
                "encryption": 'salt="AB=="; rs=24',
                "crypto_key": 'dh=ABC= , p256ecdsa="D="',
            },
            {"encoding": "aesgcm", "encryption": "salt=AB; rs=24", "crypto_key": "dh=ABC , p256ecdsa=D"},
        ),
    ],
)
@in_rig()
async def test_encodings(rig: Rig, headers: dict[str, str], kept: dict[str, str]) -> None:
    app = App(rig)
    body = bytes(range(256))
    assert await app.outcome(app.post(body, **headers)) == (201, None)
    (item,) = await app.waiting()
    assert said(item.body) == {"data": base64.urlsafe_b64encode(body).rstrip(b"=").decode(), "headers": kept}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content_encoding": ""},
        {"content_encoding": "gzip"},
        {"content_encoding": "aesgcm128", "encryption": "salt=AB", "encryption_key": "dh=AB"},
        {"content_encoding": "aes128gcm, aes128gcm"},
        {"content_encoding": "aes128gcm", "encryption": "salt=AB"},
        {"content_encoding": "aes128gcm", "encryption": "SALT=AB"},
        {"content_encoding": "aes128gcm", "crypto_key": "dh=AB"},
        {"content_encoding": "aes128gcm", "crypto_key": "p256ecdsa=CD;dh=AB"},
        {"content_encoding": "aesgcm"},
        {"content_encoding": "aesgcm", "encryption": ""},
        {"content_encoding": "aesgcm", "encryption": "salt="},
        {"content_encoding": "aesgcm", "encryption": "salt"},
        {"content_encoding": "aesgcm", "encryption": 'salt=""'},
        {"content_encoding": "aesgcm", "encryption": "salt=A*B"},
        {"content_encoding": "aesgcm", "encryption": "salt=A=B"},
        {"content_encoding": "aesgcm", "encryption": "keyid=p"},
        {"content_encoding": "aesgcm", "encryption": "salt=AB;x=\xfc"},
        {"content_encoding": "aesgcm", "encryption": "salt=AB;x=\\"},
        {"content_encoding": "aesgcm", "encryption": "salt=AB;x=\x7f\t"},
        {"content_encoding": "aesgcm", "encryption": "salt=AB", "crypto_key": ""},
        {"content_encoding": "aesgcm", "encryption": "salt=AB", "crypto_key": "p256ecdsa=AB"},
        {"content_encoding": "aesgcm", "encryption": "salt=AB", "crypto_key": "dh="},
        {"content_encoding": "aesgcm", "encryption": "salt=AB", "crypto_key": "dh=+/"},
        {"content_encoding": "aesgcm", "encryption": "salt=AB;x=" + "x" * 512},
        {"content_encoding": "aesgcm", "encryption": "salt=AB", "crypto_key": "dh=AB;x=" + "x" * 500},
        {"content_encoding": "aesgcm", "encryption": "salt=AB;x=" + "x" * 250, "crypto_key": "dh=AB;x=" + "x" * 250},
        {"content_encoding": "aesgcm", "encryption": "salt=AB" + "=" * 8000},
    ],
)
@in_rig()
async def test_encodings_that_are_none(rig: Rig, headers: dict[str, str]) -> None:
    app = App(rig)
    assert await app.outcome(app.post(b"x", **headers)) == (400, 110)
    assert await app.waiting() == []


@in_rig()
async def test_the_size_of_a_body(rig: Rig) -> None:
    app = App(rig)
    assert await app.outcome(app.post(b"x" * 5630, **AES128GCM)) == (201, None)
    assert await app.outcome(app.post(b"x" * 5631, **AES128GCM)) == (413, 104)
    assert rig.hub.counters.pushes_too_long == 1
    assert len(await app.waiting()) == 1
    assert await app.outcome(App(rig, max_body_bytes=5).post(b"x" * 6, **AES128GCM)) == (413, 104)


@in_rig()
async def test_the_largest_message_stays_below_8_kib_in_the_store(rig: Rig) -> None:
    # The store counts bytes only where so many messages wait that they could be too many, at 8 KiB each.
    app = App(rig)
    encryption, crypto_key = "salt=" + "A" * 251, "dh=" + "B" * 253
    answers = app.post(b"x" * 5630, content_encoding="aesgcm", encryption=encryption, crypto_key=crypto_key)
    assert await app.outcome(answers) == (201, None)
    (item,) = await app.waiting()
    assert item.body is not None
    assert len(item.body) <= 8192
