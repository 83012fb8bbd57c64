"""The same batches to all stores give the same answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.often import often
from support.stores import (
    ALL,
    KINDS,
    NOW,
    TESTED,
    A,
    B,
    C,
    new_store,
)

from router.common import store_kinds
from router.common.item import Item
from router.common.messages import EVERYTHING
from router.common.numbers import SECOND
from router.common.position import (
    ANY_EPOCH,
    LAST_TAG,
    LIVE,
    NO_TIME,
    OWN_OFFSETS,
    AfterId,
    AfterOffset,
    AfterTime,
    Last,
    Position,
)
from router.common.settings import StoreOptions
from router.common.store_kinds import Shape
from router.store.base import ANY_VERSION, LARGE_BODY, Append, ExpireLog, LogName, LogSize, Reads, Renewal, Writes
from router.store.changes import KEEP_EXPIRY, Change, Put, PutIfAbsent, PutIfNewer, SetAdd, SetRemove, Take
from router.store.memory import MemoryStore

DEVICES = st.sampled_from([A, B])
TIMES = st.integers(NOW, NOW + 12)
TEXTS = st.one_of(st.sampled_from(["", "\0", "\\u0000", "é"]), st.text(max_size=5))
LONG_TEXTS = st.sampled_from(["x" * 3000, "x" * LARGE_BODY, "é" * 4000, "é\0" * 4000])
SLOTS = st.sampled_from(["", "a", "b", "c", "d\0"])
RECORDS = st.tuples(st.sampled_from(["s", "t"]), DEVICES)
INBOXES = {A: EVERYTHING, B: 2, C: 1}
NAMES = {(space, key) for space in "st" for key in (A, B)}
EXPIRIES = st.sampled_from([0, KEEP_EXPIRY]) | TIMES
MEMBERS = st.sampled_from([bytes([n]) * 16 for n in range(3)])
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(Put, st.none() | st.binary(max_size=4), EXPIRIES),
    st.builds(PutIfAbsent, st.binary(max_size=4), TIMES),
    st.builds(PutIfNewer, st.binary(min_size=8, max_size=9), EXPIRIES),
    st.builds(Take, MEMBERS),
    st.builds(SetAdd, MEMBERS, st.binary(min_size=4, max_size=4), TIMES, st.integers(0, 2)),
    st.builds(SetRemove, MEMBERS),
)


IDS = st.sampled_from(["", "a", "é"])
SEQUENCES = st.integers(NOW - 1, NOW + 12).map(lambda second: second * SECOND + second % 3)
APPENDS = st.builds(
    Append,
    DEVICES,
    SEQUENCES,
    TIMES,
    TEXTS | st.sampled_from(["x" * 30_000]),
    IDS,
    st.sampled_from([{}, {"a": "b\n", "é": '"'}]),
    st.integers(1, 12),
    st.booleans(),
    st.integers(0, 5),
    st.sampled_from([0, 10, 40_000]),
)
ENDS = st.builds(ExpireLog, DEVICES, st.just(0) | TIMES)
POSITIONS: st.SearchStrategy[Position] = st.one_of(
    st.just(LIVE),
    st.builds(Last, st.integers(0, 4)),
    st.builds(AfterOffset, st.sampled_from([ANY_EPOCH, OWN_OFFSETS, 1]), st.integers(0, 14)),
    st.builds(AfterId, IDS, st.just(NO_TIME) | TIMES, st.integers(0, 3) | st.just(LAST_TAG)),
    st.builds(AfterTime, TIMES, st.integers(0, 3) | st.just(LAST_TAG)),
)
PAGES = st.sampled_from([0, 1, 101, 250, 30_000])
"""Bytes of events that are read, 0: all."""


@st.composite
def batches(draw: st.DrawFn) -> Writes:
    writes = Writes()
    keys = draw(st.lists(st.tuples(DEVICES, SLOTS), unique=True, max_size=8))
    for key in keys:
        if draw(st.booleans()):
            version, expires = draw(st.integers(0, 3)), draw(TIMES)
            writes.puts[key] = Item(
                key[1], version, 0, expires, draw(st.integers(0, 4)), draw(st.none() | TEXTS | LONG_TEXTS)
            )
        else:
            writes.removals[key] = draw(st.integers(-1, 3) | st.just(ANY_VERSION))
    values = st.none() | st.tuples(st.binary(max_size=4), EXPIRIES)
    writes.records = draw(st.dictionaries(RECORDS, values, max_size=3))
    changes = st.lists(st.tuples(RECORDS, CHANGES), max_size=6)
    writes.changes = [(name, change) for name, change in draw(changes) if name not in writes.records]
    writes.logs = draw(st.lists(st.one_of(APPENDS, APPENDS, APPENDS, ENDS), max_size=7))
    renewals = st.builds(Renewal, st.sampled_from("st"), st.lists(DEVICES, max_size=2), TIMES, TIMES)
    writes.renewals = draw(st.lists(renewals, max_size=2))
    return writes


class StoresAgree(RuleBasedStateMachine):
    """The same batches to a store and to its model in memory: the same answers, whenever a sweep comes and whenever the
    store is reopened."""

    KIND = ""
    OPTIONS = StoreOptions(inbox_limit=3, log_limit=4, log_bytes=70_000, inbox_bytes=20_000, synchronous="normal")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.memory = MemoryStore(self.OPTIONS, unix_time=lambda: NOW)
        self.store = new_store(self.KIND, self.OPTIONS, self.folder)
        self.now = NOW
        self.seq = 0
        self.is_open = False

    @initialize()
    def open(self) -> None:
        trio.run(self.store.open)
        self.is_open = True

    @property
    def can(self) -> frozenset[Shape]:
        return store_kinds.by_name(TESTED[self.KIND]).can

    def apply(self, writes: Writes, parts: set[tuple[Position, int]]) -> None:
        logs = {LogName(key, *part) for key in (A, B, C) for part in parts}
        reads = Reads(INBOXES, NAMES, logs, {A, B, C}) if Shape.LOG in self.can else Reads(INBOXES, NAMES)
        ours = trio.run(self.store.apply, writes, reads, self.now)
        model = trio.run(self.memory.apply, writes, reads, self.now)
        for name, part in ours.logs.items():
            # A sweep may have come to a log that had ended in one of them: that one's epoch is another.
            other = model.logs[name]
            model.logs[name] = other._replace(epoch=part.epoch)
            if other.epoch != part.epoch and isinstance(name.position, AfterId | AfterTime):
                model.logs[name] = model.logs[name]._replace(recovered=part.recovered)
        for results in (ours, model):
            results.appended = [end and end._replace(epoch=0) for end in results.appended]
            # A sweep may have come in one of them to a log that was told when to end, and never held anything.
            results.log_sizes = {key: size for key, size in results.log_sizes.items() if size != LogSize(0, 0, 0)}
        assert ours == model

    @rule(writes=batches(), parts=st.sets(st.tuples(POSITIONS, PAGES), max_size=4))
    def write(self, writes: Writes, parts: set[tuple[Position, int]]) -> None:
        for key, put in writes.puts.items():
            self.seq += 1
            writes.puts[key] = put._replace(seq=self.seq)
            if Shape.COLLAPSE not in self.can:
                writes.puts[key] = writes.puts[key]._replace(urgency=0)
        if Shape.LOG not in self.can:
            writes.logs = []
        self.apply(writes, parts)

    @rule(seconds=st.integers(1, 5))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(budget=st.integers(1, 20))
    def sweep(self, budget: int) -> None:
        trio.run(self.store.sweep, self.now, budget)
        trio.run(self.memory.sweep, self.now, budget)

    @precondition(lambda self: self.seq > 0)
    @rule()
    def reopen(self) -> None:
        trio.run(self.store.close)
        trio.run(self.store.open)

    @invariant()
    def same(self) -> None:
        if self.is_open:
            self.apply(Writes(), {(ALL, 0), (ALL, 1), (Last(2), 0)})

    def teardown(self) -> None:
        trio.run(self.store.close)
        shutil.rmtree(self.folder)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "memory"])
def test_a_store_agrees_with_its_model(kind: str) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("Agreeing", (StoresAgree,), {"KIND": kind}),
        settings=settings(
            max_examples=often(20), stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
