"""WebPush, app-server side: endpoints, senders, who is gone, what cannot be kept; a message that was sent."""

import json

import pytest
from support.common import Rig, in_rig
from support.webpush_app import (
    ABSENT,
    AES128GCM,
    DEVICE,
    HEAD,
    KEY,
    MEMBER,
    OLD_KEY,
    ORIGIN,
    OTHER,
    OTHER_MEMBER,
    POINT,
    SENDER,
    URL,
    App,
    headers_of,
    said,
)
from support.webpush_vapid import b64

from router.common import messages as m
from router.common.token import Tokens
from router.dialects.webpush.protocol import (
    DEVICES,
    MESSAGE_PURPOSE,
    PURPOSE,
    endpoint,
)

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
    worker.say(m.Call(1, m.SetAdd(DEVICES, ABSENT, MEMBER, HEAD, 1000, 10)))
    await rig.settle()
    assert await app.outcome(app.post(path=path)) == (201, None)
    worker.say(m.Call(2, m.SetRemove(DEVICES, ABSENT, MEMBER)))
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
