"""SimplePush, app-server side: requests through the routes and a hub, answers back."""

from collections.abc import Callable
from typing import Any

import pytest
from support.common import DELIVERY_TIMEOUT_S, Rig, growth, in_rig
from support.simplepush_app import CHANNEL, DEVICE, FORM, KEY, OLD_KEY, App, multipart

from router.common import messages as m
from router.common.token import Tokens
from router.dialects.simplepush.protocol import PURPOSE
from router.http.message import Response
from router.store.base import Reads, Writes

# ---- what an answer means


@in_rig()
async def test_200_when_the_device_has_it_and_202_when_it_waits(rig: Rig) -> None:
    app = App(rig)
    assert await app.settled(app.put(b"version=5")) == (202, {})
    listener = await app.live()
    answers = app.put(b"version=6")
    await rig.settle()
    assert answers == []
    assert listener.hear() == (CHANNEL, 6, None)
    assert await app.settled(answers) == (200, {})
    answers = app.put(b"version=7")
    listener.hear(m.NOT_HERE)
    assert await app.settled(answers) == (202, {})
    answers = app.put(b"version=8")
    listener.hear(None)
    await rig.settle()
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
    rig.hub.tick()
    assert await app.settled(answers) == (202, {})
    assert await rig.inbox(DEVICE) == [(CHANNEL, 8)]


@in_rig()
async def test_503_when_the_store_fails_even_if_the_device_has_it(rig: Rig) -> None:
    app = App(rig)
    listener = await app.live()
    rig.store.failing = True
    answers = app.put(b"version=5")
    listener.hear()
    assert await app.settled(answers) == (503, "Could not update channel version")
    assert ("Retry-After", "5") in answers[0].headers


@in_rig(store={"inbox_limit": 1})
async def test_503_when_the_inbox_is_full(rig: Rig) -> None:
    app = App(rig)
    assert await app.settled(app.put(b"version=5")) == (202, {})
    answers = app.ask("/update/" + app.token("a" * 32))
    status, _ = await app.settled(answers)
    assert status == 503
    assert ("Retry-After", "60") in answers[0].headers


@in_rig()
async def test_data_reaches_a_device_that_is_there_and_is_never_stored(rig: Rig) -> None:
    app = App(rig)
    listener = await app.live()
    answers = app.put(b"version=5&data=secret")
    assert listener.hear() == (CHANNEL, 5, "secret")
    assert await app.settled(answers) == (200, {})
    results = await rig.store.apply(Writes(), Reads(inboxes={DEVICE: m.EVERYTHING}), int(rig.clock.unix()))
    (item,) = results.inboxes[DEVICE]
    assert item.body is None


@in_rig()
async def test_an_update_waits_for_timeout_live(rig: Rig) -> None:
    app = App(rig, timeout_live=100)
    app.put(b"version=5")
    await rig.settle()
    rig.clock.pass_by(99)
    assert await rig.inbox(DEVICE) == [(CHANNEL, 5)]
    rig.clock.pass_by(1)
    assert await rig.inbox(DEVICE) == []


@in_rig()
async def test_versions_need_not_increase(rig: Rig) -> None:
    app = App(rig)
    for version in (7, 5):
        app.put(b"version=%d" % version)
        await rig.settle()
        assert await rig.inbox(DEVICE) == [(CHANNEL, version)]
    app.put(b"version=9")
    app.put(b"version=3")
    await rig.settle()
    assert await rig.inbox(DEVICE) == [(CHANNEL, 3)]


# ---- where version and data come from

_form, _form_type = multipart(version="5", data="d")
_long, _ = multipart(version="5", data="line one\r\nline two")


@pytest.mark.parametrize(
    ("found", "body", "kind", "query"),
    [
        ((5, None), b"version=5", FORM, b""),
        ((5, None), b"version=5", FORM + b"; charset=UTF-8", b""),
        ((5, None), b"version=5", b"Application/X-WWW-Form-Urlencoded", b""),
        ((5, None), b"version=5", None, b""),
        ((5, None), b"version=5", b"", b""),
        ((5, "d"), b"version=5&data=d", FORM, b""),
        ((5, "d"), b"data=d&version=5", None, b""),
        ((5, "a b&\xfc"), b"version=5&data=a+b%26%C3%BC", FORM, b""),
        ((5, None), b"version=5&data=", FORM, b""),
        ((5, None), b"version=5&version=6", FORM, b""),
        ((5, None), b"x=1&version=5&y", FORM, b""),
        ((5, None), b"", None, b"version=5"),
        ((5, "d"), b"", FORM, b"version=5&data=d"),
        ((5, "d"), b"version=5", FORM, b"version=6&data=d"),
        ((5, "d"), b"data=d", None, b"version=5"),
        ((5, "d"), _form, _form_type, b""),
        ((5, "line one\r\nline two"), _long, _form_type, b""),
        ((5, "d"), _form, _form_type, b"version=6&data=q"),
        ((5, "d"), _form.replace(b'"', b""), _form_type, b""),
        ((5, "d"), b"preamble\r\n" + _form + b"epilogue", _form_type.replace(b"edge", b'"edge"'), b""),
        ((5, "d"), _form.replace(b"form-data;", b'form-data; filename="version";'), _form_type, b""),
        ((5, "d"), _form.replace(b"\r\n\r\nd", b"\r\nContent-Type: text/plain\r\n\r\nd"), _form_type, b""),
        ((5, None), _form.replace(b'"data"', b'"version"'), _form_type, b""),
        ((None, None), _form, _form_type.replace(b"edge", b"other"), b""),
        ((None, "x" * 4096), b"data=" + b"%78" * 4096, FORM, b""),
        ((6, None), b"version=5", b"text/plain", b"version=6"),
        ((6, None), b"x" * 100_000, b"text/plain", b"version=6"),
        ((6, None), b'{"version":5}', b"application/json", b"version=6"),
        ((None, None), b"version=5", b"application/octet-stream", b""),
        ((None, None), b"", None, b""),
        ((None, None), b"version=", FORM, b""),
        ((None, "d"), b"data=d", FORM, b""),
        ((None, None), b"\xff\xfe=\xff", FORM, b"%ff"),
        ((None, None), b"--no boundary", b"multipart/form-data", b""),
        ((0, None), b"version=0", FORM, b""),
        ((5, None), b"version=%2B5", FORM, b""),
        ((5, None), b"version=0005", FORM, b""),
        ((2**63 - 1, None), b"version=9223372036854775807", FORM, b""),
        ((10**17, None), b"version=100000000000000000", FORM, b""),
    ],
)
@in_rig()
async def test_parameters(
    rig: Rig, found: tuple[int | None, str | None], body: bytes, kind: bytes | None, query: bytes
) -> None:
    app = App(rig)
    listener = await app.live()
    answers = app.put(body, kind, query)
    version = int(rig.clock.unix()) if found[0] is None else found[0]
    assert listener.hear() == (CHANNEL, version, found[1])
    assert await app.settled(answers) == (200, {})


@pytest.mark.parametrize(
    "version",
    [
        "-1",
        "-0",
        "x",
        "5x",
        "0x5",
        "1.0",
        "1e3",
        "+",
        "%20",
        "5+",
        "+5",
        "%00",
        "9223372036854775808",
        "9" * 400,
        "9" * 5000,
        "%D9%A5",
        "null",
    ],
)
@pytest.mark.parametrize("where", ["form", "query"])
@in_rig()
async def test_an_invalid_version(rig: Rig, version: str, where: str) -> None:
    app = App(rig)
    pair = f"version={version}".encode()
    answers = app.put(pair) if where == "form" else app.put(query=pair)
    assert await app.settled(answers) == (400, "Invalid Version")
    assert rig.hub.counters.pushes_invalid == 1
    assert rig.store.batches == []


@pytest.mark.parametrize(
    ("data", "status"),
    [("x" * 10, 202), ("x" * 11, 413), ("\xfc" * 5, 202), ("\xfc" * 6, 413), ("%F0%9F%93%8C" * 3, 413)],
)
@in_rig()
async def test_the_limit_of_data_counts_bytes(rig: Rig, data: str, status: int) -> None:
    app = App(rig, max_data_bytes=10)
    found = await app.settled(app.put(b"data=" + data.encode()))
    assert found == (status, {} if status == 202 else "Data exceeds max length of 10 bytes")


@pytest.mark.parametrize("kind", [None, FORM, _form_type])
@in_rig()
async def test_a_form_that_is_far_too_long_is_not_even_read(rig: Rig, kind: bytes | None) -> None:
    app = App(rig)
    nested = b"".join(b"--e%d\r\nContent-Type: multipart/mixed; boundary=e%d\r\n\r\n" % (i, i + 1) for i in range(500))
    assert (await app.settled(app.put(nested, kind)))[0] == 413


_doubled = [
    pytest.param(lambda n: (b"", b'multipart/form-data; a="' + b";" * n, b""), id="content-type"),
    pytest.param(lambda n: (b"", b"multipart/form-data; " + b'a="b;' * (n // 5), b""), id="parameters"),
    pytest.param(lambda n: (b"%" * n, FORM, b""), id="percents"),
    pytest.param(lambda n: (b"%41" * (n // 3), FORM, b""), id="escapes"),
    pytest.param(lambda n: (b"a&" * (n // 2), FORM, b""), id="fields"),
    pytest.param(lambda n: (b"", None, b"version=" + b"9" * n), id="digits"),
    pytest.param(lambda n: (b"--a\r\n" * (n // 5), b"multipart/form-data; boundary=a", b""), id="boundaries"),
    pytest.param(lambda n: (b"\r\n--" * (n // 4), b"multipart/form-data; boundary=a", b""), id="half boundaries"),
    pytest.param(lambda n: (b"--a\r\nX: " + b"\t" * n, b"multipart/form-data; boundary=a", b""), id="part header"),
    pytest.param(
        lambda n: (
            b"--a\r\nContent-Disposition: form-data" + b"; a" * (n // 3),
            b"multipart/form-data; boundary=a",
            b"",
        ),
        id="disposition",
    ),
]


@pytest.mark.parametrize("made", _doubled)
@in_rig()
async def test_what_is_four_times_as_long_takes_four_times_as_long(rig: Rig, made: Any) -> None:
    app = App(rig, max_data_bytes=100_000)
    assert growth(lambda size: app.put(*made(size)), 4000) < 10


@in_rig()
async def test_the_default_limit_of_data_is_pushgos(rig: Rig) -> None:
    app = App(rig)
    assert await app.settled(app.put(b"data=" + b"x" * 4096)) == (202, {})
    assert await app.settled(app.put(b"data=" + b"x" * 4097)) == (413, "Data exceeds max length of 4096 bytes")


# ---- tokens


@pytest.mark.parametrize(
    "token",
    ["", "x", "*", "a/b", "%00", "\xff", "A" * 60, "A" * 2000, ".", "uaid.chid"],
)
@in_rig()
async def test_a_bad_token(rig: Rig, token: str) -> None:
    app = App(rig)
    assert await app.settled(app.ask("/update/" + token, b"version=5")) == (404, "Invalid Token")
    assert rig.hub.counters.pushes_rejected == 1


@in_rig()
async def test_a_token_of_another_key_or_purpose(rig: Rig) -> None:
    app = App(rig)
    address = DEVICE + CHANNEL.encode()
    for token in (Tokens([OLD_KEY]).seal(PURPOSE, address), app.tokens.seal(b"webpush", address), app.token() + "A"):
        assert await app.settled(app.ask("/update/" + token)) == (404, "Invalid Token")


@in_rig()
async def test_keys_are_rotated(rig: Rig) -> None:
    old = Tokens([OLD_KEY]).seal(PURPOSE, DEVICE + CHANNEL.encode())
    app = App(rig, keys=(KEY, OLD_KEY))
    assert await app.settled(app.ask("/update/" + old)) == (202, {})
    assert await app.settled(app.put()) == (202, {})
    assert await app.settled(App(rig).ask("/update/" + old)) == (404, "Invalid Token")


@pytest.mark.parametrize("channel", [CHANNEL, CHANNEL.upper().replace("1", "A"), "a" * 32, "A" * 32])
@in_rig()
async def test_a_channel_keeps_its_spelling(rig: Rig, channel: str) -> None:
    app = App(rig)
    listener = await app.live()
    app.ask("/update/" + app.token(channel), b"version=1")
    assert listener.hear()[0] == channel


@in_rig()
async def test_the_order_of_the_checks(rig: Rig) -> None:
    app = App(rig, max_data_bytes=1)
    assert (await app.settled(app.ask("/update/bad", b"version=x&data=xx", method=b"POST")))[0] == 405
    assert (await app.settled(app.ask("/update/bad", b"version=x&data=xx")))[0] == 404
    assert (await app.settled(app.put(b"version=x&data=xx")))[0] == 400
    assert (await app.settled(app.put(b"version=1&data=xx")))[0] == 413
    assert (await app.settled(app.put(b"version=1&data=x")))[0] == 202


# ---- methods and CORS


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"DELETE", b"PATCH", b"put"])
@in_rig()
async def test_only_put_pushes(rig: Rig, method: bytes) -> None:
    answers = App(rig).put(b"version=5", method=method)
    assert await App(rig).settled(answers) == (405, "Method Not Allowed")
    assert ("Allow", "PUT, OPTIONS") in answers[0].headers
    assert rig.store.batches == []


CORS = {("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Methods", "PUT, OPTIONS")}


@pytest.mark.parametrize("on", [False, True])
@in_rig()
async def test_cors(rig: Rig, on: bool) -> None:
    app = App(rig, endpoint={"cors": on})
    asked: list[Callable[[], list[Response]]] = [
        lambda: app.put(method=b"OPTIONS"),
        lambda: app.put(method=b"GET"),
        lambda: app.put(b"version=x"),
        lambda: app.ask("/update/bad"),
        app.put,
    ]
    statuses = []
    for ask in asked:
        answers = ask()
        await rig.settle()
        (answer,) = answers
        statuses.append(answer.status)
        assert set(answer.headers) >= CORS if on else not CORS & set(answer.headers)
    assert statuses == [200, 405, 400, 404, 202]


@in_rig()
async def test_options_is_empty(rig: Rig) -> None:
    assert await App(rig).settled(App(rig).ask("/update/anything", method=b"OPTIONS")) == (200, None)
