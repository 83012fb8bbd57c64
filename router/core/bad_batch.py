"""A batch of which something can never be written: it is found by halves, and the rest is written."""

from __future__ import annotations

from collections.abc import Iterable

from router.common.messages import FAILED, OK
from router.common.position import AfterOffset
from router.core.batch import Batch, Outcome, Place, SlotName
from router.store.base import BadBatchError, Reads, Results, Store, Writes
from router.store.changes import UNCHANGED, Changed

_Part = tuple[SlotName | Place | None, Writes]
"""One write, and what it is called in `Outcome.bad`; None: it is in no callback's name."""


async def apply_apart(store: Store, batch: Batch, now: int) -> tuple[Outcome, list[tuple[BadBatchError, Writes]]]:
    """Write what can be written, in the order in which a store writes, then read.

    Returns: what became of the batch, and each write that no store can hold with the error.
    Raises: StoreError.
    """
    writes = batch.writes
    outcome = Outcome(OK, Results())
    unwritable: list[tuple[BadBatchError, Writes]] = []
    appended: list[AfterOffset | None] = [None] * len(writes.logs)
    changes = [Changed(UNCHANGED)] * len(writes.changes)
    stack = [_parts(writes)]
    while stack:
        some = stack.pop()
        try:
            found = await store.apply(_joined(part for _, part in some), Reads(), now)
        except BadBatchError as error:
            if len(some) > 1:
                half = len(some) // 2
                stack += (some[half:], some[:half])
                continue
            ((name, part),) = some
            unwritable.append((error, part))
            if name is None:
                outcome.commits = FAILED
            else:
                outcome.bad.add(name)
            continue
        outcome.results.refused |= found.refused
        outcome.results.evicted += found.evicted
        outcome.results.failed |= found.failed
        for place, end in zip(_places(some, "log"), found.appended, strict=True):
            appended[place] = end
        for place, changed in zip(_places(some, "change"), found.changes, strict=True):
            changes[place] = changed
    read = await store.apply(Writes(), batch.reads, now)
    read.refused, read.evicted = outcome.results.refused, outcome.results.evicted
    read.appended, read.changes = appended, changes
    read.failed |= outcome.results.failed
    outcome.results = read
    return outcome, unwritable


def _parts(writes: Writes) -> list[_Part]:
    parts: list[_Part] = [(None, Writes(ceiling=writes.ceiling))] if writes.ceiling else []
    parts += [(None, Writes(renewals=[renewal])) for renewal in writes.renewals]
    parts += [(None, Writes(removals={key: version})) for key, version in writes.removals.items()]
    parts += [(key, Writes(puts={key: item})) for key, item in writes.puts.items()]
    parts += [(None, Writes(records={name: value})) for name, value in writes.records.items()]
    parts += [(("change", place), Writes(changes=[change])) for place, change in enumerate(writes.changes)]
    parts += [(("log", place), Writes(logs=[write])) for place, write in enumerate(writes.logs)]
    return parts


def _places(parts: Iterable[_Part], kind: str) -> list[int]:
    """Of those of this kind, which they are of the batch's."""
    return [name[1] for name, _ in parts if name is not None and name[0] == kind and isinstance(name[1], int)]


def _joined(parts: Iterable[Writes]) -> Writes:
    joined = Writes()
    for part in parts:
        joined.removals |= part.removals
        joined.puts |= part.puts
        joined.records |= part.records
        joined.logs += part.logs
        joined.changes += part.changes
        joined.renewals += part.renewals
        joined.ceiling = max(joined.ceiling, part.ceiling)
    return joined
