"""What an application of Pusher may publish, and keep in the store: beyond, the dialect refuses in its own words."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support import pusher_app
from support.common import Rig, in_rig

from router.dialects.pusher.kept import EVENT_BYTES, KeptBytes

ENDPOINT = {"pushes_per_endpoint": 0.5, "burst_seconds": 4}
"""Two at once, and one more every two seconds."""
WAIT = ("Retry-After", "2")


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


@in_rig(store={"max_bytes": 1}, limits={"pushes_per_endpoint": 0.1, "burst_seconds": 1})
async def test_pusher_what_is_refused_is_not_counted_as_stored(rig: Rig, tmp_path: Path) -> None:
    app = pusher_app.App(rig, tmp_path, limits={"store_bytes_per_application": 3 * EVENT_BYTES}, cache_ttl=60)
    assert (await app.post(event("cache-a")))[0] == 200  # the store is full now
    assert [(await app.post(event("cache-a", name)))[0] for name in ("cache-b", "cache-c", "cache-d")] == [429] * 3
    assert [(await app.post(event(f"cache-{name}")))[0] for name in "bcd"] == [503] * 3


@in_rig()
async def test_pusher_what_the_store_did_not_take_is_not_counted_as_stored(rig: Rig, tmp_path: Path) -> None:
    app = pusher_app.App(rig, tmp_path, limits={"store_bytes_per_application": 2 * (EVENT_BYTES + 100)}, cache_ttl=60)
    big, small = ({"name": "x", "data": "d" * size} for size in (80, 1))
    assert (await app.post(small | {"channel": "cache-a"}))[0] == 200
    rig.store.failing = True
    failed = [await app.post(big | {"channels": list(names)}) for names in (["cache-a"], ["cache-b"], ["cache-c"])]
    assert [status for status, _ in failed] == [503] * 3
    rig.store.failing = False
    assert (await app.post(big | {"channels": ["cache-b", "cache-c"]}))[0] == 403  # the small one is still there
    assert [(await app.post(big | {"channel": f"cache-{name}"}))[0] for name in "ab"] == [200, 200]
    assert (await app.post(big | {"channel": "cache-c"}))[0] == 403


def test_pusher_what_was_not_stored_is_undone_only_while_nothing_has_followed_it() -> None:
    kept = KeptBytes(10_000)
    first = kept.keep("a", [(b"1", 100)], 0, 10)
    second = kept.keep("a", [(b"1", 200)], 1, 11)
    assert first is not None and second is not None
    kept.not_stored("a", b"1", first[b"1"])
    assert kept.of("a", 1) == EVENT_BYTES + 200
    kept.not_stored("a", b"1", second[b"1"])
    assert kept.of("a", 1) == EVENT_BYTES + 100
    third = kept.keep("a", [(b"2", 5)], 2, 12)
    assert third is not None
    assert kept.of("a", 12) == 0
    kept.not_stored("a", b"2", third[b"2"])
    kept.not_stored("unknown", b"2", third[b"2"])
    assert kept.of("a", 12) == 0


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
        assert (kept.keep(app, asked, now, now + ttl) is not None) == may
        if may:
            model |= {(app, key): (EVENT_BYTES + size, now + ttl) for key, size in events.items()}
        there = after if may else there
        assert kept.of(app, now) == sum(there.values())
