"""SimplePush, app-server side: many pushes in a request, and PushGo's pages."""

import json
from typing import Any

import pytest
from support.common import Rig, in_rig
from support.simplepush_app import CHANNEL, DEVICE, App

from router.http.message import Response

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
