"""WebPush, app-server side: requests through the routes and a real hub, answers out."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import FakeWorker, Rig, in_rig, settings_with
from support.webpush_vapid import Sender, b64

from router.common import id_set
from router.common import messages as v
from router.common.settings import EndpointOptions, Listen
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.webpush.app_server import routes
from router.dialects.webpush.protocol import (
    DEVICES,
    MESSAGE_PURPOSE,
    NAME,
    PURPOSE,
    WebPushOptions,
    base_url,
    channel_id,
    channel_member,
    channel_of,
    endpoint,
    parse_wire,
    plain_slot,
    topic_slot,
    wire_version,
)
from router.dialects.webpush.vapid import key_digest
from router.http.message import Request, Response
from router.http.routes import Router
from router.store.base import Item

URL = "https://push.example.org/farm"
ORIGIN = "https://push.example.org"
DEVICE, ABSENT = bytes(range(16)), b"a" * 16
CHID, OTHER_CHID = "0a1b2c3d-2222-3333-4444-555555555555", "ffffffff-2222-3333-4444-555555555555"
MEMBER, OTHER_MEMBER = bytes.fromhex(CHID.replace("-", "")), bytes.fromhex(OTHER_CHID.replace("-", ""))
HEAD = b"\x00\x00\x4c\xe0"
KEY, OLD_KEY = b"k" * 32, b"o" * 32
SENDER, OTHER = Sender(), Sender()
POINT = b64(SENDER.raw)
AES128GCM = {"content-encoding": "aes128gcm"}


class App:
    """The routes over a rig in which one device has one channel."""

    def __init__(self, rig: Rig, keys: tuple[bytes, ...] = (KEY,), **options: Any) -> None:
        self.rig = rig
        self.tokens = Tokens(keys)
        settings = settings_with((WebPushOptions, options), (EndpointOptions, {"url": URL}))
        self.router = Router(routes(Context(rig.hub.core, self.tokens, settings, rig.clock.unix, dict)))
        self.register(MEMBER)

    def register(self, *channels: bytes, device: bytes = DEVICE) -> None:
        """The device has these channels and no others."""
        record = HEAD
        for channel in channels:
            record = id_set.added(record, HEAD, channel)
        self.rig.committer.record(DEVICES, device, record, 0)

    def path(self, sender: Sender | None = None, device: bytes = DEVICE, member: bytes = MEMBER) -> str:
        """Of an endpoint; with a sender, of one that is bound to its key."""
        digest = key_digest(sender.raw) if sender is not None else b""
        return endpoint("", self.tokens, device, member, digest)

    def vapid(self, sender: Sender = SENDER, **changes: Any) -> str:
        claims = {"aud": ORIGIN, "exp": int(self.rig.clock.unix()) + 3600} | changes
        return sender.vapid(claims).decode()

    def ask(
        self, path: str, body: bytes = b"", headers: dict[str, str] | None = None, method: bytes = b"POST"
    ) -> list[Response]:
        """Returns: a list that gets the answer when it comes."""
        answers: list[Response] = []
        handler = self.router.find(path.encode("latin-1"))
        assert handler is not None
        found = {name.encode(): value.encode("latin-1") for name, value in (headers or {}).items()}
        handler(Request(method, path.encode("latin-1"), b"", {b"host": b"push"} | found, body), answers.append)
        return answers

    def post(self, body: bytes = b"", path: str | None = None, **headers: str) -> list[Response]:
        """A push; a TTL of 60 s where none is given. Underscores stand for hyphens; an empty TTL is left out."""
        found = {"ttl": "60"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if found["ttl"] == "none":
            del found["ttl"]
        return self.ask(path or self.path(), body, found)

    async def settled(self, answers: list[Response]) -> Response:
        """The one answer. Every one of this dialect may be read by web pages."""
        await self.rig.settle()
        (answer,) = answers
        assert ("Access-Control-Allow-Origin", "*") in answer.headers
        return answer

    async def outcome(self, answers: list[Response]) -> tuple[int, int | None]:
        """Status and errno."""
        answer = await self.settled(answers)
        if answer.status in (200, 201, 204, 404):
            assert answer.body == b""
            return answer.status, None
        body = json.loads(answer.body)
        assert answer.content_type == "application/json"
        assert set(body) == {"code", "errno", "error", "message", "more_info"}
        assert body["code"] == answer.status
        assert isinstance(body["message"], str)
        return answer.status, body["errno"]

    async def waiting(self, device: bytes = DEVICE) -> list[Item]:
        """What the store has for a device, in the order of delivery."""
        await self.rig.settle()
        found: list[list[Item]] = []
        self.rig.committer.read_inbox(device, lambda status, items: found.append(items), most=1000)
        await self.rig.settle()
        return found[0]

    def live(self) -> "Listener":
        worker = self.rig.worker()
        worker.say((v.ATTACH, 1, DEVICE, "", 0, 0))
        worker.take()
        return Listener(worker)


class Listener:
    """The device's worker. It does not say whether a message was written: nobody waits for that."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker

    def hear(self) -> list[tuple[str, int, str | None]]:
        """Slot, version and body of what was said to it."""
        words = [word for word in self._worker.take() if word[0] == v.DELIVER]
        assert all(word[1:3] == [0, DEVICE] for word in words)
        return [(word[3], word[4], word[5]) for word in words]


def headers_of(answer: Response) -> dict[str, str]:
    return dict(answer.headers)


def said(body: str | None) -> Any:
    """What a device makes of a stored body."""
    assert body is not None
    assert body.isascii()
    return json.loads("{" + body + "}")


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


# ---- tokens


@pytest.mark.parametrize("token", ["", "x", "*", "a/b", "%00", "\xff", "A" * 60, "A" * 2000, "."])
@pytest.mark.parametrize("version", ["", "v1/", "v2/", "v3/"])
@in_rig()
async def test_a_bad_token(rig: Rig, version: str, token: str) -> None:
    app = App(rig)
    answer = await app.settled(app.post(path=f"/wpush/{version}{token}"))
    assert (answer.status, answer.body) == (404, b"")
    assert rig.hub.counters.pushes_rejected == 1


@in_rig()
async def test_a_token_of_another_key_purpose_or_version(rig: Rig) -> None:
    app = App(rig)
    address = DEVICE + MEMBER
    v1, v2 = app.path().rpartition("/")[2], app.path(SENDER).rpartition("/")[2]
    for path in (
        "/wpush/v1/" + Tokens([OLD_KEY]).seal(PURPOSE, address),
        "/wpush/v1/" + app.tokens.seal(b"simplepush", address),
        "/wpush/v1/" + app.tokens.seal(MESSAGE_PURPOSE, address),
        "/wpush/v1/" + app.tokens.seal(PURPOSE, address[:-1]),
        "/wpush/v1/" + app.tokens.seal(PURPOSE, b""),
        "/wpush/v1/" + v2,
        "/wpush/" + v2,
        "/wpush/v2/" + v1,
        "/wpush/v3/" + v1,
        "/wpush/v1/" + v1 + "A",
        "/wpush/v1/" + v1[:-1],
    ):
        assert await app.outcome(app.post(path=path, authorization=app.vapid())) == (404, None)


@in_rig()
async def test_every_form_of_an_endpoint(rig: Rig) -> None:
    app = App(rig)
    v1 = app.path()
    assert v1.startswith("/wpush/v1/")
    for path in (v1, v1.replace("v1/", ""), v1 + "=" * (-len(v1.rpartition("/")[2]) % 4)):
        assert await app.outcome(app.post(path=path)) == (201, None)
    v2 = app.path(SENDER)
    assert v2.startswith("/wpush/v2/")
    assert await app.outcome(app.post(path=v2, authorization=app.vapid())) == (201, None)
    assert len(await app.waiting()) == 4


@in_rig()
async def test_keys_are_rotated(rig: Rig) -> None:
    old = endpoint("", Tokens([OLD_KEY]), DEVICE, MEMBER)
    assert await App(rig, keys=(KEY, OLD_KEY)).outcome(App(rig, keys=(KEY, OLD_KEY)).post(path=old)) == (201, None)
    assert await App(rig).outcome(App(rig).post(path=old)) == (404, None)


# ---- VAPID


@in_rig()
async def test_a_bound_endpoint_wants_its_senders_signature(rig: Rig) -> None:
    app = App(rig)
    path = app.path(SENDER)
    for headers in ({}, {"authorization": app.vapid(OTHER)}, {"crypto_key": "p256ecdsa=" + POINT}):
        answer = await app.settled(app.post(path=path, **headers))
        assert (answer.status, json.loads(answer.body)["errno"]) == (401, 109)
        assert headers_of(answer)["WWW-Authenticate"] == "vapid"
    assert await app.waiting() == []
    assert await app.outcome(app.post(path=path, authorization=app.vapid())) == (201, None)


@in_rig()
async def test_a_plain_endpoint_wants_none_but_checks_what_comes(rig: Rig) -> None:
    app = App(rig)
    assert await app.outcome(app.post()) == (201, None)
    assert await app.outcome(app.post(crypto_key="p256ecdsa=nonsense")) == (201, None)
    for sender in (SENDER, OTHER):
        assert await app.outcome(app.post(authorization=app.vapid(sender))) == (201, None)
    for authorization in (
        "",
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "vapid t=x,k=y",
        app.vapid() + "A",
        app.vapid(aud="https://elsewhere.example.org"),
        app.vapid(exp=int(rig.clock.unix()) - 10),
        app.vapid(exp=int(rig.clock.unix()) + 86_411),
        "vapid " + "x" * 5000,
    ):
        assert await app.outcome(app.post(authorization=authorization)) == (401, 109)


@pytest.mark.parametrize("scheme", ["WebPush", "Bearer"])
@in_rig()
async def test_the_scheme_of_the_drafts_beside_an_aesgcm_key(rig: Rig, scheme: str) -> None:
    app = App(rig)
    token = SENDER.token({"aud": ORIGIN, "exp": int(rig.clock.unix()) + 60})
    headers = {
        "authorization": f"{scheme} {token}",
        "content_encoding": "aesgcm",
        "encryption": "keyid=p256dh;salt=AB",
        "crypto_key": f"keyid=p256dh;dh={OTHER.public},p256ecdsa={SENDER.public}",
    }
    assert await app.outcome(app.post(b"x", app.path(SENDER), **headers)) == (201, None)
    assert await app.outcome(app.post(b"x", app.path(OTHER), **headers)) == (401, 109)
    (item,) = await app.waiting()
    assert said(item.body)["headers"]["crypto_key"] == headers["crypto_key"]


@in_rig()
async def test_a_token_that_expires_while_it_is_remembered(rig: Rig) -> None:
    app = App(rig)
    authorization = app.vapid()
    assert await app.outcome(app.post(authorization=authorization)) == (201, None)
    rig.clock.pass_by(3610)
    assert await app.outcome(app.post(authorization=authorization)) == (401, 109)


@in_rig()
async def test_what_a_sender_is_told(rig: Rig) -> None:
    app = App(rig)
    answer = await app.settled(app.post(authorization=app.vapid(aud="https://elsewhere.example.org")))
    body = json.loads(answer.body)
    assert (body["code"], body["error"]) == (401, "Unauthorized")
    assert "aud" in body["message"]
    assert body["more_info"].startswith("http")


# ---- subscriptions that have ended


@in_rig()
async def test_410_for_a_device_or_a_channel_that_is_gone(rig: Rig) -> None:
    app = App(rig)
    for path, errno in ((app.path(device=ABSENT), 103), (app.path(member=OTHER_MEMBER), 106)):
        answer = await app.settled(app.post(b"x", path, **AES128GCM))
        assert (answer.status, json.loads(answer.body)["errno"]) == (410, errno)
        assert headers_of(answer)["Cache-Control"] == "max-age=86400"
    assert rig.hub.counters.pushes == 0
    assert rig.hub.counters.pushes_rejected == 2
    assert await app.waiting(ABSENT) == []


@in_rig()
async def test_it_is_seen_at_once_that_a_channel_comes_or_goes(rig: Rig) -> None:
    app = App(rig)
    path = app.path(member=OTHER_MEMBER)
    assert await app.outcome(app.post()) == (201, None)
    assert await app.outcome(app.post(path=path)) == (410, 106)
    app.register(MEMBER, OTHER_MEMBER)
    assert await app.outcome(app.post(path=path)) == (201, None)
    app.register(OTHER_MEMBER)
    assert await app.outcome(app.post()) == (410, 106)
    rig.committer.record(DEVICES, DEVICE, None, 0)
    assert await app.outcome(app.post(path=path)) == (410, 103)


@in_rig()
async def test_a_channel_that_a_device_enlists_and_delists(rig: Rig) -> None:
    app = App(rig)
    worker = rig.worker()
    path = app.path(device=ABSENT)
    worker.say((v.SET_ADD, 1, DEVICES, ABSENT, MEMBER, HEAD, 1000, 10))
    await rig.settle()
    assert await app.outcome(app.post(path=path)) == (201, None)
    worker.say((v.SET_REMOVE, 2, DEVICES, ABSENT, MEMBER))
    await rig.settle()
    assert await app.outcome(app.post(path=path)) == (410, 106)


# ---- when the store cannot


@in_rig(store={"inbox_limit": 1})
async def test_503_when_nothing_of_a_full_inbox_may_go(rig: Rig) -> None:
    app = App(rig)
    assert await app.outcome(app.post(urgency="high")) == (201, None)
    answer = await app.settled(app.post(urgency="low"))
    assert (answer.status, json.loads(answer.body)["errno"]) == (503, 201)
    assert headers_of(answer)["Retry-After"] == "120"
    assert await app.outcome(app.post(urgency="high")) == (201, None)
    assert len(await app.waiting()) == 1


@in_rig()
async def test_503_when_the_store_fails(rig: Rig) -> None:
    app = App(rig)
    assert await app.outcome(app.post()) == (201, None)  # now its record is in memory, the other device's is not
    app.register(MEMBER, device=ABSENT)
    await rig.settle()
    rig.store.failing = True
    for path in (app.path(), app.path(device=ABSENT)):
        answer = await app.settled(app.post(path=path))
        assert (answer.status, json.loads(answer.body)["errno"]) == (503, 202)
        assert headers_of(answer)["Retry-After"] == "120"
    rig.store.failing = False
    assert await app.outcome(app.post()) == (201, None)


@in_rig(store={"queue_limit": 3})
async def test_503_when_too_much_waits(rig: Rig) -> None:
    app = App(rig)
    assert await app.outcome(app.post()) == (201, None)
    message = headers_of(await app.settled(app.post()))["Location"].removeprefix(URL)
    rig.store.hold()
    waiting = [app.post() for _ in range(4)]
    await rig.settle()
    assert await app.outcome(app.post()) == (503, 201)
    assert await app.outcome(app.ask(message, method=b"DELETE")) == (503, 201)
    rig.store.release()
    assert {await app.outcome(answers) for answers in waiting} <= {(201, None), (503, 201)}


# ---- a message that was sent


@pytest.mark.parametrize("topic", [{}, {"topic": "news"}])
@in_rig()
async def test_a_message_is_deleted(rig: Rig, topic: dict[str, str]) -> None:
    app = App(rig)
    answer = await app.settled(app.post(b"x", **AES128GCM, **topic))
    app.post(b"y", **AES128GCM)
    message = headers_of(answer)["Location"].removeprefix(URL)
    assert len(await app.waiting()) == 2
    rig.store.hold()
    answers = app.ask(message, method=b"DELETE")
    await rig.settle()
    assert answers == []
    rig.store.release()
    assert await app.outcome(answers) == (204, None)
    (item,) = await app.waiting()
    assert said(item.body)["data"] == b64(b"y")
    assert await app.outcome(app.ask(message, method=b"DELETE")) == (204, None)
    assert len(await app.waiting()) == 1


@in_rig()
async def test_what_replaced_a_message_is_not_deleted_with_it(rig: Rig) -> None:
    app = App(rig)
    first, second = [await app.settled(app.post(b"x", topic="news", **AES128GCM)) for _ in range(2)]
    old, new = (headers_of(answer)["Location"].removeprefix(URL) for answer in (first, second))
    assert await app.outcome(app.ask(old, method=b"DELETE")) == (204, None)
    assert len(await app.waiting()) == 1
    assert await app.outcome(app.ask(new, method=b"DELETE")) == (204, None)
    assert await app.waiting() == []


@pytest.mark.parametrize("name", ["", "x", "*", "a/b", "\xff", "A" * 60, "A" * 2000])
@in_rig()
async def test_messages_that_are_none(rig: Rig, name: str) -> None:
    app = App(rig)
    assert await app.outcome(app.ask("/m/" + name, method=b"DELETE")) == (400, 102)
    endpoints = app.path().rpartition("/")[2]
    assert await app.outcome(app.ask("/m/" + endpoints, method=b"DELETE")) == (400, 102)


@in_rig(store={"kind": "memory", "max_bytes": 2000})
async def test_a_full_store_takes_what_it_need_not_keep(rig: Rig) -> None:
    app = App(rig)
    while (status := await app.outcome(app.post(b"x" * 300, **AES128GCM))) == (201, None):
        message = headers_of(await app.settled(app.post(ttl="0")))["Location"].removeprefix(URL)
    assert status == (503, 201)
    assert await app.outcome(app.post(ttl="0")) == (201, None)
    assert await app.outcome(app.ask(message, method=b"DELETE")) == (204, None)


@in_rig()
async def test_503_when_a_deletion_is_not_kept(rig: Rig) -> None:
    app = App(rig)
    message = headers_of(await app.settled(app.post()))["Location"].removeprefix(URL)
    rig.store.failing = True
    assert await app.outcome(app.ask(message, method=b"DELETE")) == (503, 202)


# ---- methods, CORS, order


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"post"])
@in_rig()
async def test_other_methods(rig: Rig, method: bytes) -> None:
    app = App(rig)
    for path in (app.path(), app.path(SENDER), "/wpush/x"):
        answer = await app.settled(app.ask(path, b"x", {"ttl": "60"}, method))
        assert (answer.status, headers_of(answer)["Allow"]) == (405, "POST, OPTIONS")
    if method != b"DELETE":
        answer = await app.settled(app.ask("/m/x", method=method))
        assert (answer.status, headers_of(answer)["Allow"]) == (405, "DELETE, OPTIONS")
    assert await app.waiting() == []


@pytest.mark.parametrize("path", ["/wpush/v1/x", "/wpush/v2/x", "/wpush/x", "/m/x"])
@in_rig()
async def test_preflights(rig: Rig, path: str) -> None:
    answer = await App(rig).settled(App(rig).ask(path, method=b"OPTIONS"))
    found = headers_of(answer)
    assert (answer.status, answer.body) == (200, b"")
    assert set(found["Access-Control-Allow-Methods"].split(", ")) == {"DELETE", "GET", "POST", "PUT"}
    assert {"Authorization", "TTL", "Topic", "Urgency", "Content-Encoding", "*"} <= set(
        found["Access-Control-Allow-Headers"].split(", ")
    )
    assert found["Access-Control-Max-Age"] == "3600"


@in_rig()
async def test_pages_may_read_what_they_are_told(rig: Rig) -> None:
    app = App(rig)
    exposed = headers_of(await app.settled(app.post()))["Access-Control-Expose-Headers"].split(", ")
    assert {"Location", "TTL"} <= set(exposed)


@in_rig()
async def test_the_order_of_the_checks(rig: Rig) -> None:
    app = App(rig, max_body_bytes=1)
    gone, bound = app.path(device=ABSENT), app.path(SENDER, device=ABSENT)
    good = app.vapid()
    assert await app.outcome(app.post(b"xx", "/wpush/v1/x", ttl="x", authorization="x")) == (404, None)
    assert await app.outcome(app.post(b"xx", bound, ttl="x")) == (401, 109)
    assert await app.outcome(app.post(b"xx", gone, ttl="x", authorization="x")) == (401, 109)
    assert await app.outcome(app.post(b"xx", bound, ttl="x", topic="*", authorization=good)) == (400, 111)
    assert await app.outcome(app.post(b"xx", gone, topic="*", urgency="*")) == (400, 113)
    assert await app.outcome(app.post(b"xx", gone, urgency="*")) == (400, 115)
    assert await app.outcome(app.post(b"xx", gone)) == (400, 110)
    assert await app.outcome(app.post(b"xx", gone, **AES128GCM)) == (413, 104)
    assert await app.outcome(app.post(b"x", gone, **AES128GCM)) == (410, 103)
    assert await app.outcome(app.post(b"x", bound, authorization=good, **AES128GCM)) == (410, 103)


@pytest.mark.parametrize("path", [b"/wpush", b"/m", b"/wpush-v1/x", b"wpush/x", b"/", b"/v1/wpush/x"])
@in_rig()
async def test_paths_that_nobody_serves(rig: Rig, path: bytes) -> None:
    assert App(rig).router.find(path) is None


# ---- names

numbers = st.integers(0, 2**63 - 1)
ids = st.binary(min_size=16, max_size=16).map(channel_id)
topics = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)


@given(numbers, ids)
def test_a_plain_message_is_found_by_its_name_on_the_wire(number: int, chid: str) -> None:
    slot = plain_slot(number, chid)
    assert channel_of(slot) == chid
    assert parse_wire(chid, wire_version(slot, number)) == (slot, number)


@given(numbers, ids, topics)
def test_a_message_with_a_topic_is_found_by_its_name_on_the_wire(number: int, chid: str, topic: str) -> None:
    slot = topic_slot(chid, topic)
    assert channel_of(slot) == chid
    assert parse_wire(chid, wire_version(slot, number)) == (slot, number)


@given(numbers, numbers, ids, ids, topics)
def test_slots_sort_as_they_are_delivered(one: int, two: int, chid: str, other: str, topic: str) -> None:
    assert topic_slot(chid, topic) < plain_slot(one, other)
    if one < two:
        assert plain_slot(one, chid) < plain_slot(two, other)
        slot = topic_slot(chid, topic)
        assert wire_version(slot, one) != wire_version(slot, two) != plain_slot(two, chid)


@pytest.mark.parametrize(
    "wire",
    [
        "",
        "0",
        "#",
        "0" * 15,
        "0" * 17,
        "8" + "0" * 15,
        "f" * 16,
        "0" * 15 + "A",
        "0" * 15 + "g",
        "0" * 16 + "#",
        "0" * 16 + "#a b",
        "0" * 16 + "#" + "x" * 33,
        "0" * 16 + ":x",
        "0" * 16 + "\n",
        " " + "0" * 16,
        "\u0660" * 16,
        "0" * 10_000,
    ],
)
def test_versions_that_name_nothing_of_ours(wire: str) -> None:
    assert parse_wire(CHID, wire) is None


@pytest.mark.parametrize(
    "chid", ["", "x", CHID.upper(), CHID.replace("-", ""), CHID + "0", CHID + "\n", "{" + CHID + "}", "g" + CHID[1:]]
)
def test_channel_ids_that_are_none(chid: str) -> None:
    assert channel_member(chid) is None
    assert parse_wire(chid, "0" * 16) is None


@given(st.uuids())
def test_channel_ids_are_uuids(chid: Any) -> None:
    assert channel_member(str(chid)) == chid.bytes
    assert channel_id(chid.bytes) == str(chid)


def test_endpoints_begin_with_the_public_base() -> None:
    assert base_url(settings_with((EndpointOptions, {"url": URL}))) == URL
    listen = {"host": "127.0.0.1", "router_port": 4711}
    assert base_url(settings_with((Listen, listen))) == "http://127.0.0.1:4711"
    assert NAME == "webpush"
