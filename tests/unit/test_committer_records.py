"""What the committer remembers of records."""

from typing import Any

import pytest
from support.commits import DEVICE, OTHER
from support.common import Rig, in_rig

from router.common.messages import FAILED, OK
from router.core.record_cache import MAX_AGE_S
from router.store.changes import KEEP_EXPIRY


class Lookups:
    """Look-ups of one record, and whether they were answered at once."""

    def __init__(self, rig: Rig, key: bytes = DEVICE) -> None:
        self.rig = rig
        self.key = key

    async def __call__(self) -> tuple[int, bytes | None, bool]:
        heard: list[tuple[int, bytes | None]] = []
        self.rig.committer.look_up("space", self.key, lambda status, value: heard.append((status, value)))
        at_once = bool(heard)
        await self.rig.settle()
        ((status, value),) = heard
        return status, value, at_once


@in_rig()
async def test_what_was_looked_up_is_remembered_for_ten_minutes_and_what_is_not_there_is_not(rig: Rig) -> None:
    look_up = Lookups(rig)
    assert await look_up() == (OK, None, False)
    assert await look_up() == (OK, None, False)
    rig.committer.record("space", DEVICE, b"1", 0)
    assert await look_up() == (OK, b"1", False)
    assert await look_up() == (OK, b"1", True)
    commits = rig.committer.commits
    rig.clock.pass_by(19)
    assert await look_up() == (OK, b"1", True)
    assert rig.committer.commits == commits
    rig.clock.pass_by(MAX_AGE_S)
    assert await look_up() == (OK, b"1", False)


@in_rig(store={"record_cache": 0})
async def test_nothing_is_remembered_without_room(rig: Rig) -> None:
    rig.committer.record("space", DEVICE, b"1", 0)
    look_up = Lookups(rig)
    for _ in range(2):
        assert await look_up() == (OK, b"1", False)


@in_rig()
async def test_a_write_is_seen_at_once(rig: Rig) -> None:
    look_up = Lookups(rig)
    rig.committer.record("space", DEVICE, b"1", 0)
    await look_up()
    rig.committer.record("space", DEVICE, b"2", 0)
    assert await look_up() == (OK, b"2", True)
    rig.committer.record("space", DEVICE, None, 0)
    assert await look_up() == (OK, None, False)


@pytest.mark.parametrize("value", [b"new", None])
@in_rig()
async def test_a_write_that_crosses_with_the_look_up_is_seen_by_the_next(rig: Rig, value: bytes | None) -> None:
    look_up = Lookups(rig)
    rig.committer.record("space", DEVICE, b"old", 0)
    await rig.settle()
    rig.store.hold()
    crossed: list[Any] = []
    rig.committer.look_up("space", DEVICE, lambda *heard: crossed.append(heard))
    await rig.settle()  # the read is under way
    rig.committer.record("space", DEVICE, value, 0)
    rig.store.release()
    await rig.settle()
    assert crossed == [(OK, b"old")]
    assert await look_up() == (OK, value, False)


@in_rig()
async def test_a_write_that_failed_is_forgotten(rig: Rig) -> None:
    look_up = Lookups(rig)
    rig.committer.record("space", DEVICE, b"1", 0)
    await look_up()
    rig.store.failing = True
    rig.committer.record("space", DEVICE, b"2", 0)
    await rig.settle()
    assert await look_up() == (FAILED, None, False)
    rig.store.failing = False
    assert await look_up() == (OK, b"1", False)
    assert await look_up() == (OK, b"1", True)


@in_rig()
async def test_a_record_written_without_an_expiry_keeps_its_own_in_the_same_batch_too(rig: Rig) -> None:
    now = int(rig.clock.unix())
    look_up, other = Lookups(rig), Lookups(rig, OTHER)
    rig.committer.record("space", OTHER, b"there", 0)
    await rig.settle()
    rig.committer.record("space", DEVICE, b"1", now + int(MAX_AGE_S))
    rig.committer.record("space", DEVICE, b"2", KEEP_EXPIRY)
    rig.committer.record("space", OTHER, None, 0)
    rig.committer.record("space", OTHER, b"gone", KEEP_EXPIRY)
    assert await look_up() == (OK, b"2", False)
    assert await other() == (OK, None, False)
    rig.clock.pass_by(MAX_AGE_S)
    assert await look_up() == (OK, None, False)
