"""The committer over a store of several parts, as one on many hosts is: where a part fails, the rest does not."""

from __future__ import annotations

from typing import Any

from support.common import GatedStore, Rig, in_rig

from router.common.item import Item
from router.common.messages import FAILED, OK
from router.common.position import Last
from router.store.base import Append, Reads, Results, Writes
from router.store.changes import UNCHANGED, Changed, SetRemove

DEVICE, OTHER = b"d" * 16, b"e" * 16


def item(slot: str, version: int) -> Item:
    return Item(slot, version, 1, 2**40, 0, None)


class PartedStore(GatedStore):
    """Of two parts, of which one may be down: what has its key in that one fails alone."""

    down: bytes | None = None

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        if self.down is None:
            return await super().apply(writes, reads, now)
        kept = Writes(
            puts={key: one for key, one in writes.puts.items() if key[0] != self.down},
            removals={key: version for key, version in writes.removals.items() if key[0] != self.down},
            records={name: record for name, record in writes.records.items() if name[1] != self.down},
        )
        results = await super().apply(kept, reads, now)
        results.changes = [Changed(UNCHANGED)] * len(writes.changes)
        results.appended = [None] * len(writes.logs)
        results.failed = {self.down}
        return results


@in_rig()
async def test_where_a_part_of_the_store_fails_only_what_is_in_it_does(rig: Rig) -> None:
    rig.store.__class__ = PartedStore
    assert isinstance(rig.store, PartedStore)
    heard: list[Any] = []

    def everything(device: bytes) -> None:
        rig.committer.put(device, item("a", 1), lambda status: heard.append(("put", status)))
        rig.committer.record("space", device, b"value", 0)
        rig.committer.read_inbox(device, lambda status, items: heard.append(("inbox", status, len(items))))
        rig.committer.read_record("space", device, lambda status, value: heard.append(("record", status)))
        rig.committer.read_inboxes([device], lambda status, found: heard.append(("inboxes", status, len(found))))

    rig.committer.put(OTHER, item("old", 7), lambda status: None)
    await rig.settle()
    rig.store.down = OTHER
    everything(DEVICE)
    await rig.settle()
    assert heard == [("put", OK), ("inbox", OK, 1), ("inboxes", OK, 1), ("record", OK)]
    heard.clear()
    everything(OTHER)
    rig.committer.change("space", OTHER, SetRemove(DEVICE), lambda status, changed: heard.append(("change", status)))
    rig.committer.append(Append(OTHER, 0, 2**40, "x"), lambda status, end: heard.append(("log", status)))
    rig.committer.read_log(OTHER, Last(1), lambda status, part: heard.append(("slice", status)))
    rig.committer.read_log_sizes([DEVICE, OTHER], lambda status, held: heard.append(("sizes", status)))
    rig.committer.acknowledged(OTHER, [("old", 7)])
    rig.committer.when_durable(lambda status: heard.append(("durable", status)))
    failures = rig.committer.failures
    await rig.settle()
    assert {one[:2] for one in heard} == {
        (what, FAILED) for what in ("put", "inbox", "record", "inboxes", "change", "log", "slice", "sizes", "durable")
    }
    assert rig.committer.failures == failures + 1
    # What was acknowledged is not given out, and is removed once that part is well again.
    assert rig.committer.unremoved == 1
    rig.store.down = None
    everything(DEVICE)
    await rig.settle()
    assert rig.committer.unremoved == 0
    assert await rig.inbox(OTHER) == []
