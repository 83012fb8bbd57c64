"""SimplePush, app-server side: requests through the routes and a real hub, answers out."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.common import DELIVERY_TIMEOUT_S, FakeWorker, Rig, growth, in_rig, settings_with

from router.common import messages as v
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.simplepush.app_server import routes
from router.dialects.simplepush.protocol import NAME, PURPOSE, SimplePushOptions
from router.http.message import Request, Response
from router.http.routes import Router
from router.http.turns import Turns
from router.store.base import Reads, Writes

DEVICE = bytes(range(16))
CHANNEL = "11111111-2222-3333-4444-555555555555"
KEY, OLD_KEY = b"k" * 32, b"o" * 32
FORM = b"application/x-www-form-urlencoded"


class App:
    """The routes over a rig."""

    def __init__(
        self, rig: Rig, keys: tuple[bytes, ...] = (KEY,), endpoint: dict[str, Any] | None = None, **options: Any
    ):
        self.rig = rig
        self.tokens = Tokens(keys)
        self.state: dict[str, Any] = {"workers": [], "age": 12.5}
        settings = settings_with((SimplePushOptions, options), (EndpointOptions, endpoint or {}))
        self.turns = Turns()
        context = Context(rig.hub.core, self.tokens, settings, rig.clock.unix, self.status, self.turns)
        self.router = Router(routes(context))

    def status(self) -> dict[str, Any]:
        counters = self.rig.hub.counters.snapshot() | {"store_ok": self.rig.committer.healthy}
        return {**self.state, "router": counters}

    def token(self, channel: str = CHANNEL, device: bytes = DEVICE) -> str:
        return self.tokens.seal(PURPOSE, device + channel.encode())

    def ask(
        self, path: str, body: bytes = b"", method: bytes = b"PUT", kind: bytes | None = None, query: bytes = b""
    ) -> list[Response]:
        """Returns: a list that gets the answer when it comes."""
        answers: list[Response] = []
        handler = self.router.find(path.encode("latin-1"))
        assert handler is not None
        headers = {b"host": b"push"} | ({b"content-type": kind} if kind is not None else {})
        handler(Request(method, path.encode("latin-1"), query, headers, body), answers.append)
        return answers

    def put(self, body: bytes = b"", kind: bytes | None = FORM, query: bytes = b"", **more: Any) -> list[Response]:
        return self.ask("/update/" + self.token(), body, kind=kind, query=query, **more)

    async def settled(self, answers: list[Response]) -> tuple[int, Any]:
        """Status and body of the one answer."""
        self.turns.run()
        await self.rig.settle()
        (answer,) = answers
        assert answer.content_type == "application/json"
        return answer.status, json.loads(answer.body) if answer.body else None

    async def live(self) -> "Listener":
        worker = self.rig.worker()
        worker.say((v.ATTACH, 1, DEVICE, "", 0, 0))
        worker.take()
        return Listener(worker)


class Listener:
    """The device's worker: hears one update, and says that it was written."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    def hear(self, outcome: int | None = v.WRITTEN) -> tuple[str, int, str | None]:
        ((kind, number, device, slot, version, body),) = self.worker.take()
        assert (kind, device) == (v.DELIVER, DEVICE)
        if outcome is not None:
            self.worker.say((v.RESULT, number, outcome))
        return slot, version, body


def multipart(**fields: str) -> tuple[bytes, bytes]:
    """Body and Content-Type."""
    parts = "".join(
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    return (parts + "--edge--\r\n").encode(), b"multipart/form-data; boundary=edge"


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
    listener.hear(v.NOT_HERE)
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
    results = await rig.store.apply(Writes(), Reads(inboxes={DEVICE: v.EVERYTHING}), int(rig.clock.unix()))
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


# ---- the batch route


def batch(app: App, *lines: Any) -> list[Response]:
    """Ask, and have the first turn."""
    body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    answers = app.ask("/v1/push", body, method=b"POST")
    app.turns.run()
    return answers


async def batched(app: App, answers: list[Response]) -> list[dict[str, Any]]:
    """The lines of the answer."""
    await app.rig.settle()
    (answer,) = answers
    assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
    assert answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


@in_rig()
async def test_a_batch_is_answered_line_by_line_in_order(rig: Rig) -> None:
    app = App(rig)
    listener = await app.live()
    other = app.token(device=b"o" * 16)
    answers = batch(
        app,
        {"token": other, "version": 1},
        {"token": app.token(), "version": "2", "data": "d", "unknown": [1]},
        b"",
        {"endpoint": "https://push.example.org/update/" + other},
        b"  ",
        {"endpoint": "/update/" + other, "version": 4, "token": None, "data": None, "more": None},
        {"token": other, "version": None, "endpoint": None},
    )
    await rig.settle()
    assert answers == []
    assert listener.hear() == (CHANNEL, 2, "d")
    assert [line["status"] for line in await batched(app, answers)] == [202, 200, 202, 202, 202]
    assert await rig.inbox(b"o" * 16) == [(CHANNEL, int(rig.clock.unix()))]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"nonsense", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"1", 400),
        (b"null", 400),
        (b'{"token":"\xff"}', 400),
        (b'{"x\xff":1}', 404),
        (b'{"token":1}', 400),
        (b'{"token":"x","version":1.5}', 400),
        (b'{"token":"x","version":true}', 400),
        (b'{"token":"x","version":-1}', 400),
        (b'{"token":"x","version":"x"}', 400),
        (b'{"token":"x","version":9223372036854775808}', 400),
        (b'{"token":"x","version":' + b"9" * 5000 + b"}", 400),
        (b'{"token":"x","version":"' + b"9" * 5000 + b'"}', 400),
        (b'{"token":"x","version":"\\u0665"}', 400),
        (b'{"token":"x","data":1}', 400),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400),
        (b'{"token":"\\ud800"}', 400),
        (b'{"token":"x","data":"xxxxxxxxxxx"}', 413),
        (b'{"token":"x","version":1}', 404),
        (b'{"token":"\xf0\x9f\x93\x8c"}', 404),
        (b'{"endpoint":"https://elsewhere.example.org/"}', 404),
        (b'{"endpoint":"http://[bad/update/x"}', 404),
        (b"{}", 404),
        (b'{"token":null,"endpoint":null,"version":null,"data":null}', 404),
    ],
)
@in_rig()
async def test_a_bad_line_spoils_no_other(rig: Rig, line: bytes, status: int) -> None:
    app = App(rig, max_data_bytes=10)
    answers = batch(app, {"token": app.token(), "version": 1}, line, {"token": app.token("a" * 32), "version": 2})
    statuses = [answer["status"] for answer in await batched(app, answers)]
    assert statuses == [202, status, 202]
    assert len(await rig.inbox(DEVICE)) == 2


@in_rig()
async def test_a_line_says_what_is_wrong(rig: Rig) -> None:
    app = App(rig)
    listener = await app.live()
    rig.store.failing = True
    answers = batch(app, {"token": app.token()}, {"token": "x"}, {"version": "x"})
    listener.hear()
    found = await batched(app, answers)
    assert [line["status"] for line in found] == [503, 404, 400]
    texts = [json.dumps(line) for line in found]
    for text, part in zip(texts, ("Could not update channel version", "Invalid Token", "Invalid Version"), strict=True):
        assert part in text


@in_rig()
async def test_a_batch_has_its_share_of_a_turn_and_of_what_is_in_work(rig: Rig) -> None:
    app = App(rig, endpoint={"lines_a_turn": 10, "max_lines_in_work": 50})
    rig.store.hold()
    good = {"token": app.token(device=b"o" * 16), "version": 1}
    answers = batch(app, *[good] * 20, *[{"token": "x"}] * 30, *[good] * 50)
    pushed = [rig.hub.counters.pushes]
    while app.turns.waiting:
        app.turns.run()
        pushed.append(rig.hub.counters.pushes)
    assert pushed == [10, 20, 20, 20, 20, 25]  # of the bad ones ten in a turn as well
    assert answers == []
    rig.store.release()
    while not answers:
        await rig.settle()
        assert app.turns.waiting
        before = rig.hub.counters.pushes
        app.turns.run()
        assert rig.hub.counters.pushes - before <= 10
        await rig.settle()
    assert [line["status"] for line in await batched(app, answers)] == [202] * 20 + [404] * 30 + [202] * 50
    assert not app.turns.waiting


@in_rig()
async def test_a_batch_has_limits_and_a_method(rig: Rig) -> None:
    app = App(rig, endpoint={"max_batch": 2})
    line = {"token": app.token()}
    assert len(await batched(app, batch(app, line, b"", line))) == 2
    assert (await app.settled(batch(app, line, line, line)))[0] == 413
    assert (await app.settled(batch(app, *[b""] * 4, line)))[0] == 413
    assert (await app.settled(batch(app)))[0] == 400
    assert (await app.settled(batch(app, b" ", b"\r")))[0] == 400
    answers = app.ask("/v1/push", json.dumps(line).encode(), method=b"PUT")
    assert (await app.settled(answers))[0] == 405
    assert ("Allow", "POST") in answers[0].headers
    assert rig.hub.counters.pushes == 2


# ---- PushGo's pages


@pytest.mark.parametrize(("store", "workers", "well"), [(True, 2, True), (False, 2, False), (True, 0, False)])
@in_rig()
async def test_realstatus(rig: Rig, store: bool, workers: int, well: bool) -> None:
    app = App(rig)
    app.state.update(workers=[{"max_connections": 100}] * workers)
    rig.store.failing = not store
    rig.committer.record("space", DEVICE, b"x", 0)
    await rig.settle()
    status, page = await app.settled(app.ask("/realstatus/", method=b"GET"))
    assert (status, page["ok"]) == (200 if well else 503, well)
    assert page["maxClients"] == 100 * workers
    assert {part["name"]: part["ok"] for part in page["plugins"]} == {"store": store, "router": workers > 0}
    assert {"clientCount", "maxEndpointConns", "goroutines", "version"} <= set(page)


@in_rig()
async def test_metrics_under_pushgos_names(rig: Rig) -> None:
    app = App(rig)
    app.state["workers"] = [{"connections": 3, "hellos": 5}, {"connections": 4}]
    await app.settled(app.put())
    await app.settled(app.put(b"version=x"))
    status, page = await app.settled(app.ask("/metrics/", method=b"GET"))
    assert status == 200
    assert page["server.age"] == 12
    assert page["counter.updates.appserver.received"] == 1
    assert page["counter.updates.appserver.invalid"] == 1
    assert page["gauge.update.client.connections"] == 7
    assert page["counter.updates.client.hello"] == 5


@pytest.mark.parametrize("path", ["/realstatus/", "/metrics/"])
@in_rig()
async def test_pages_are_for_reading(rig: Rig, path: str) -> None:
    app = App(rig)
    assert (await app.settled(app.ask(path, method=b"HEAD")))[0] in (200, 503)
    answers = app.ask(path, method=b"POST")
    assert (await app.settled(answers))[0] == 405
    assert ("Allow", "GET, HEAD") in answers[0].headers


@pytest.mark.parametrize("path", [b"/", b"/update", b"/status", b"/v1/push/", b"/v1", b"", b"/metrics", b"update/x"])
@in_rig()
async def test_paths_that_nobody_serves(rig: Rig, path: bytes) -> None:
    assert App(rig).router.find(path) is None


@in_rig()
async def test_two_dialects_may_not_claim_one_path(rig: Rig) -> None:
    made = list(routes(Context(rig.hub.core, Tokens([KEY]), settings_with(), rig.clock.unix, dict)))
    with pytest.raises(ValueError, match="/update/"):
        Router(made + made)
    assert NAME == "simplepush"
