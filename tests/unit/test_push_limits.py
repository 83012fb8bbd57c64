"""What app servers may push: by address, by who signs, and to one endpoint; each dialect refuses in its own words."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support import gopush2_app, pusher_app, pushstream_app, simplepush_app, webpush_app
from support.common import Rig, in_rig
from support.webpush_vapid import Sender

from router.common.client_address import Networks
from router.common.client_keys import ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import RouterCounters
from router.core.push_limits import PushLimits, retry_after
from router.dialects.pusher.kept import EVENT_BYTES, KeptBytes
from router.http.message import Response

ENDPOINT = {"pushes_per_endpoint": 0.5, "burst_seconds": 4}
"""Two at once, and one more every two seconds."""
WAIT = ("Retry-After", "2")


def limits_of(**limits: float) -> tuple[PushLimits, RouterCounters, list[float]]:
    counters, now = RouterCounters(), [100.0]
    options = LimitOptions(**limits)  # type: ignore[arg-type]
    return PushLimits(options, ClientKeys(Networks(("10.0.0.0/8",))), counters, lambda: now[0]), counters, now


def test_what_is_not_limited_has_nobody_to_ask() -> None:
    limits, _, _ = limits_of()
    assert (limits.address, limits.application, limits.endpoint) == (None, None, None)


def test_addresses_are_counted_each_and_proxies_are_not() -> None:
    limits, counters, now = limits_of(pushes_per_address=1, burst_seconds=2)
    address = limits.address
    assert address is not None
    assert [address("192.0.2.1") > 0 for _ in range(3)] == [False, False, True]
    assert address("2001:db8::1") == address("2001:db8::2") == 0 < address("2001:db8::3")
    assert [address("10.0.0.1") for _ in range(9)] == [address("") for _ in range(9)] == [0.0] * 9
    assert counters.limited_pushes_per_address == 2
    now[0] += 1
    assert not address("192.0.2.1")


def test_a_push_to_several_is_allowed_to_all_of_them_or_counted_for_none() -> None:
    limits, counters, _ = limits_of(pushes_per_endpoint=1, burst_seconds=2)
    endpoint = limits.endpoint
    assert endpoint is not None
    assert not endpoint(b"a") and not endpoint(b"a")
    assert endpoint.of_all([b"b", b"a"]) > 0
    assert not endpoint.of_all([b"b", b"c"]) and not endpoint.of_all([b"b"])
    assert endpoint.of_all([b"b"]) > 0
    assert not endpoint.of_all([b"c", b"c"]) and endpoint.of_all([b"c"]) > 0  # what comes as a whole is allowed so
    assert endpoint.of_all([]) == 0
    assert counters.limited_pushes_per_endpoint == 3


def test_who_has_to_wait_is_told_whole_seconds_and_never_none() -> None:
    assert [retry_after(seconds)[1] for seconds in (0.001, 1.0, 1.1, 60.0)] == ["1", "1", "2", "60"]


# ---- each dialect


@in_rig(limits=ENDPOINT)
async def test_simplepush_an_endpoint(rig: Rig) -> None:
    app = simplepush_app.App(rig)
    statuses = [await app.settled(app.put(b"version=%d" % number)) for number in range(1, 4)]
    assert statuses == [(202, {}), (202, {}), (429, "Too many updates for this endpoint")]
    (answer,) = app.put()
    assert WAIT in answer.headers
    other = "99999999-2222-3333-4444-555555555555"
    assert (await app.settled(app.ask("/update/" + app.token(other))))[0] == 202
    lines = json.dumps({"token": app.token(), "version": 7}).encode() + b"\n"
    answers = app.ask("/v1/push", lines * 2, b"POST")
    app.turns.run()
    await rig.settle()
    assert [json.loads(line)["status"] for line in answers[0].body.splitlines()] == [429, 429]
    rig.clock.pass_by(2)
    assert (await app.settled(app.put()))[0] == 202
    assert rig.hub.counters.limited_pushes_per_endpoint == 4


@in_rig(limits=ENDPOINT)
async def test_webpush_an_endpoint(rig: Rig) -> None:
    app = webpush_app.App(rig)
    await rig.settle()
    assert [await app.outcome(app.post()) for _ in range(3)] == [(201, None), (201, None), (429, 201)]
    assert WAIT in (await app.settled(app.post())).headers
    rig.clock.pass_by(2)
    assert await app.outcome(app.post()) == (201, None)


@in_rig(limits={"pushes_per_application": 1, "burst_seconds": 2})
async def test_webpush_a_vapid_key(rig: Rig) -> None:
    app = webpush_app.App(rig)
    await rig.settle()
    other = Sender()
    assert [await app.outcome(app.post(authorization=app.vapid())) for _ in range(3)] == [
        (201, None),
        (201, None),
        (429, 201),
    ]
    assert ("Retry-After", "1") in (await app.settled(app.post(authorization=app.vapid()))).headers
    assert await app.outcome(app.post(authorization=app.vapid(other))) == (201, None)
    assert [await app.outcome(app.post()) for _ in range(5)] == [(201, None)] * 5  # it has not signed
    assert rig.hub.counters.limited_pushes_per_application == 2
    assert rig.hub.counters.pushes_invalid == rig.hub.counters.pushes_rejected == 0


def event(*channels: str) -> dict[str, object]:
    return {"name": "x", "channels": list(channels), "data": "d"}


@in_rig(limits={"pushes_per_application": 1, "burst_seconds": 3})
async def test_pusher_an_application(rig: Rig, tmp_path: Path) -> None:
    app = pusher_app.App(rig, tmp_path)
    assert await app.post(event("a", "b")) == (200, {})
    assert (await app.post({"batch": [event("a"), event("b")]}, "/apps/3/batch_events"))[0] == 200
    assert await app.post(event("a")) == (429, "Too many events of this application")
    (answer,) = app.call("POST", "/apps/3/events", event("a"))
    assert ("Retry-After", "2") in answer.headers
    assert (await app.get("/apps/3/channels"))[0] == 200
    other = app.call("POST", "/apps/4/events", event("a"), pusher_app.OTHER)
    assert await app.answer(other) == (200, {})


@in_rig(limits=ENDPOINT)
async def test_pusher_a_channel(rig: Rig, tmp_path: Path) -> None:
    app = pusher_app.App(rig, tmp_path)
    assert [(await app.post(event("a")))[0] for _ in range(3)] == [200, 200, 429]
    assert await app.post(event("b", "a")) == (429, "Too many events for this channel")
    (answer,) = app.call("POST", "/apps/3/events", event("a"))
    assert WAIT in answer.headers
    assert [(await app.post(event("b")))[0] for _ in range(3)] == [200, 200, 429]


@in_rig()
async def test_pusher_what_an_application_stores(rig: Rig, tmp_path: Path) -> None:
    app = pusher_app.App(rig, tmp_path, limits={"store_bytes_per_application": 2 * (EVENT_BYTES + 100)}, cache_ttl=60)
    big = {"name": "x", "data": "d" * 80}
    assert [(await app.post(big | {"channel": f"cache-{name}"}))[0] for name in "ab"] == [200, 200]
    status, text = await app.post(big | {"channel": "cache-c"})
    assert (status, text[:44]) == (403, "The application has too much in the store (l")
    assert await app.post(big | {"channel": "c"}) == (200, {})  # which stores nothing
    assert await app.post(big | {"channel": "cache-a", "data": "e"}) == (200, {})  # in place of the one before
    assert (await app.post(big | {"channels": ["cache-b", "cache-c"]}))[0] == 403
    other = app.call("POST", "/apps/4/events", big | {"channel": "cache-c"}, pusher_app.OTHER)
    assert await app.answer(other) == (200, {})
    assert rig.hub.counters.limited_store_bytes_per_application == 2
    rig.clock.pass_by(61)
    assert await app.post(big | {"channel": "cache-c"}) == (200, {})


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.dictionaries(st.integers(0, 6), st.integers(0, 900), max_size=3),
            st.integers(0, 8),
        ),
        max_size=60,
    )
)
def test_what_applications_store_is_what_has_not_expired(steps: list[tuple[str, dict[int, int], int]]) -> None:
    kept, model, now, ttl = KeptBytes(4000), dict[tuple[str, int], tuple[int, float]](), 100.0, 10
    for app, events, seconds in steps:
        now += seconds
        there = {key[1]: size for key, (size, expires) in model.items() if key[0] == app and expires > now}
        after = there | {key: EVENT_BYTES + size for key, size in events.items()}
        may = sum(after.values()) <= max(4000, sum(there.values()))
        asked = [(bytes([key]), size) for key, size in events.items()]
        assert kept.keep(app, asked, now, now + ttl) == may
        if may:
            model |= {(app, key): (EVENT_BYTES + size, now + ttl) for key, size in events.items()}
        there = after if may else there
        assert kept.of(app, now) == sum(there.values())


@in_rig(limits=ENDPOINT)
async def test_gopush2_a_key(rig: Rig) -> None:
    app = gopush2_app.App(rig)
    await app.ch()

    async def push() -> Response:
        return await app.answer("POST", f"/pub?key={gopush2_app.KEY}", b"hello")

    assert [(await push()).status for _ in range(3)] == [200, 200, 429]
    assert WAIT in (await push()).headers
    assert (await app.stat("subscriber"))["failed_message"] == 0


@in_rig(limits={"pushes_per_address": 0.5, "burst_seconds": 4})
async def test_gopush2_an_address(rig: Rig) -> None:
    app = gopush2_app.App(rig, admin_key="secret")
    target = "/pub?key=nobody&admin_key=secret"

    async def push(address: str) -> Response:
        return await app.answer("POST", target, b"hello", address=address)

    answers = [await push("192.0.2.1") for _ in range(3)]
    assert [one.status for one in answers[:2]] == [200, 200]
    assert (answers[2].status, answers[2].body) == (429, b"Too many pushes from this address\n")
    assert WAIT in answers[2].headers
    assert (await push("192.0.2.2")).status == 200


@in_rig(limits=ENDPOINT)
async def test_pushstream_a_channel(rig: Rig) -> None:
    app = pushstream_app.PushApp(rig)
    answers = [await app.call("POST", "/pub?id=a", "hello") for _ in range(3)]
    assert [one.status for one in answers] == [200, 200, 429]
    assert WAIT in answers[2].headers
    assert ("X-Nginx-PushStream-Explain", "Too many messages for this channel.") in answers[2].headers
    assert (await app.call("POST", "/pub?id=b", "hello")).status == 200
    assert rig.hub.counters.limited_pushes_per_endpoint == 1


@in_rig(limits={"pushes_per_address": 0.5, "burst_seconds": 4})
async def test_pushstream_an_address(rig: Rig) -> None:
    app = pushstream_app.PushApp(rig)
    answers = [await app.call("POST", f"/pub?id={number}", "hello") for number in range(3)]
    assert [one.status for one in answers] == [200, 200, 429]
    assert WAIT in answers[2].headers
    assert (await app.call("GET", "/pub?id=1")).status == 200
