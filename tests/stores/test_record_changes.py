"""Changes that depend on what a record holds, in each store: what each writes, and what it answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
from support.stores import LATER, NOW, OPTIONS, A, B, in_store

from router.store.base import BadBatchError, Reads, Renewal, Results, Store, Writes
from router.store.changes import (
    CHANGED,
    FULL,
    KEEP_EXPIRY,
    TAKEN_S,
    UNCHANGED,
    Change,
    Changed,
    Put,
    PutIfAbsent,
    PutIfNewer,
    SetAdd,
    SetRemove,
    Take,
)
from router.store.sqlite import SqliteStore

SPACE = "s"
NAME = (SPACE, A)
HEAD, LATER_HEAD = b"day1", b"day2"
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16
NONCE, OTHER_NONCE = b"n" * 16, b"o" * 16


async def change(store: Store, *changes: Change, now: int = NOW) -> list[Changed]:
    return (await store.apply(Writes(changes=[(NAME, one) for one in changes]), Reads(), now)).changes


async def value(store: Store, now: int = NOW) -> bytes | None:
    return (await store.apply(Writes(), Reads(records={NAME}), now)).records.get(NAME)


def number(n: int) -> bytes:
    return n.to_bytes(8, "big")


@in_store()
async def test_what_is_there_is_not_put_again(store: Store) -> None:
    assert await change(store, PutIfAbsent(b"first", NOW + 5), PutIfAbsent(b"second", LATER)) == [
        Changed(CHANGED),
        Changed(UNCHANGED),
    ]
    assert await value(store) == b"first"
    assert await change(store, PutIfAbsent(b"third", LATER), now=NOW + 4) == [Changed(UNCHANGED)]
    assert await change(store, PutIfAbsent(b"fourth", LATER), now=NOW + 5) == [Changed(CHANGED)]
    assert await value(store, NOW + 5) == b"fourth"


@in_store()
async def test_only_what_is_newer_is_written(store: Store) -> None:
    for version, outcome in ((5, CHANGED), (5, UNCHANGED), (4, UNCHANGED), (2**63, CHANGED), (256, UNCHANGED)):
        assert await change(store, PutIfNewer(number(version) + b"x", 0)) == [Changed(outcome)], version
    assert await value(store) == number(2**63) + b"x"
    # What is shorter than a number is older than any.
    assert await change(store, Put(b"", 0), PutIfNewer(number(0), 0)) == [Changed(CHANGED)] * 2


@in_store()
async def test_a_record_is_taken_once(store: Store) -> None:
    await change(store, Put(b"token", LATER))
    assert await change(store, Take(NONCE), Take(OTHER_NONCE)) == [Changed(CHANGED, b"token"), Changed(UNCHANGED)]
    assert await value(store) is None
    assert await change(store, Take(OTHER_NONCE)) == [Changed(UNCHANGED)]


@in_store()
async def test_who_has_taken_a_record_may_ask_again_for_a_while(store: Store) -> None:
    for expires, kept in ((0, TAKEN_S), (NOW + 10_000, TAKEN_S), (NOW + 5, 5)):
        await change(store, Put(b"token", expires))
        assert await change(store, Take(NONCE)) == [Changed(CHANGED, b"token")]
        assert await change(store, Take(NONCE), now=NOW + kept - 1) == [Changed(CHANGED, b"token")]
        assert await change(store, Take(NONCE), now=NOW + kept) == [Changed(UNCHANGED)]


@in_store()
async def test_what_was_taken_may_be_put_again_and_taken_by_another(store: Store) -> None:
    await change(store, PutIfAbsent(b"token", LATER), Take(NONCE))
    assert await change(store, PutIfAbsent(b"again", LATER), Take(OTHER_NONCE)) == [
        Changed(CHANGED),
        Changed(CHANGED, b"again"),
    ]
    assert await change(store, Take(NONCE)) == [Changed(UNCHANGED)]


@in_store()
async def test_nothing_that_has_expired_is_taken(store: Store) -> None:
    await change(store, Put(b"token", NOW + 1))
    assert await change(store, Take(NONCE), now=NOW + 1) == [Changed(UNCHANGED)]


@in_store()
async def test_members_of_a_set_come_and_go(store: Store) -> None:
    add = partial(SetAdd, head=HEAD, expires=LATER, most=2)
    assert await change(store, add(ONE), add(TWO), add(ONE), add(THREE)) == [
        Changed(CHANGED),
        Changed(CHANGED),
        Changed(UNCHANGED),
        Changed(FULL),
    ]
    assert await value(store) == HEAD + ONE + TWO
    assert await change(store, SetRemove(ONE), SetRemove(ONE), add(THREE)) == [
        Changed(CHANGED),
        Changed(UNCHANGED),
        Changed(CHANGED),
    ]
    assert await value(store) == HEAD + TWO + THREE


@in_store()
async def test_a_member_that_is_there_renews_head_and_expiry(store: Store) -> None:
    await change(store, SetAdd(ONE, HEAD, NOW + 5, 1))
    assert await change(store, SetAdd(ONE, LATER_HEAD, LATER, 0)) == [Changed(UNCHANGED)]
    assert await value(store, LATER - 1) == LATER_HEAD + ONE
    # To go is not to renew.
    assert await change(store, SetRemove(ONE)) == [Changed(CHANGED)]
    assert (await value(store, LATER - 1), await value(store, LATER)) == (LATER_HEAD, None)
    # And a set that has expired is none.
    assert await change(store, SetRemove(ONE), SetAdd(ONE, HEAD, 0, 1), now=LATER) == [
        Changed(UNCHANGED),
        Changed(CHANGED),
    ]


@in_store()
async def test_an_unconditional_write_between_two_changes_is_made_between_them(store: Store) -> None:
    found = await change(
        store,
        SetAdd(ONE, HEAD, NOW + 5, 9),
        Put(HEAD + TWO, KEEP_EXPIRY),
        SetAdd(THREE, HEAD, LATER, 9),
        Put(None, 0),
        Put(b"nothing to keep it by", KEEP_EXPIRY),
        SetRemove(THREE),
        SetAdd(ONE, LATER_HEAD, LATER, 9),
    )
    assert [one.outcome for one in found] == [CHANGED, CHANGED, CHANGED, CHANGED, UNCHANGED, UNCHANGED, CHANGED]
    assert await value(store) == LATER_HEAD + ONE


@in_store()
async def test_changes_come_after_the_renewals_and_beside_the_other_writes_of_their_batch(store: Store) -> None:
    await change(store, Put(number(1), NOW + 5))
    writes = Writes(
        records={(SPACE, B): (b"beside", 0)},
        changes=[(NAME, SetRemove(ONE)), (NAME, PutIfNewer(number(2), KEEP_EXPIRY))],
        renewals=[Renewal(SPACE, [A], LATER, LATER)],
    )
    found: Results = await store.apply(writes, Reads(records={NAME, (SPACE, B)}), NOW)
    assert found.changes == [Changed(UNCHANGED), Changed(CHANGED)]
    assert found.records == {NAME: number(2), (SPACE, B): b"beside"}
    assert await value(store, LATER - 1) == number(2)


@pytest.mark.parametrize(
    "bad", [Take(b"short"), PutIfNewer(b"short", 0), SetAdd(b"short", HEAD, 0, 1), SetAdd(ONE, b"", 0, 1)]
)
def test_a_change_that_can_never_be_made_fails_the_batch_as_a_whole(tmp_path: Path, bad: Change) -> None:
    async def main(store: SqliteStore) -> None:
        await store.open()
        with pytest.raises(BadBatchError):
            await store.apply(Writes(changes=[(NAME, Put(b"x", 0)), (NAME, bad)]), Reads(), NOW)
        assert await value(store) is None
        await store.close()

    trio.run(main, SqliteStore(OPTIONS, tmp_path / "store.sqlite3"))
