"""What memcached answers, and what it holds: its replies in two parts, the first byte says where, and entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import msgspec

import router.store.memcached_protocol
import router.store.memcached_work
from fuzz.engine import Target
from router.common.item import Item
from router.common.messages import EVERYTHING
from router.store.base import ANY_VERSION, Reads, Renewal, Results, Writes
from router.store.changes import CHANGED, Changed, SetAdd, Take
from router.store.memcached_protocol import Entries, Entry, Outcomes, ProtocolError, Statistics
from router.store.memcached_work import Layout, works

_NOW: Final = 1_000_000
_DEVICE: Final = b"d" * 16
_LAYOUT: Final = Layout("p:", 2)
_READERS: Final[tuple[Callable[[], Entries | Outcomes | Statistics], ...]] = (
    Entries,
    partial(Outcomes, 2),
    Statistics,
)


def replies(data: bytes) -> None:
    """A reply is what it is in whatever parts it comes."""
    cut, data = data[:1], data[1:]
    at = cut[0] if cut else 0
    for reader in _READERS:
        assert _read(reader(), [data]) == _read(reader(), [data[:at], data[at:]])


def _read(reply: Entries | Outcomes | Statistics, parts: Iterable[bytes]) -> object:
    ended = False
    try:
        for part in parts:
            if part and ended:
                return "no reply"
            ended = ended or reply.feed(part)
    except ProtocolError as error:
        assert len(str(error)) < 500
        return "no reply"
    return reply.found if ended else None


def entries(data: bytes) -> None:
    """Whatever an entry holds, a batch makes of it what it can read again."""
    item = Item("new", 5, 7, _NOW + 9, 0, "body")
    batches = (
        Writes(),
        Writes(removals={(_DEVICE, "a"): ANY_VERSION}, renewals=[Renewal("s", [_DEVICE], _NOW + 99, _NOW + 50)]),
        Writes(puts={(_DEVICE, "new"): item}, records={("s", _DEVICE): (b"v", 0)}),
        Writes(changes=[(("s", _DEVICE), SetAdd(b"m" * 16, b"head", 0, 9)), (("s", _DEVICE), Take(b"t" * 16))]),
    )
    for writes in batches:
        results = Results(changes=[Changed(CHANGED)] * len(writes.changes))
        for work in works(_LAYOUT, writes, Reads({_DEVICE: EVERYTHING}, {("s", _DEVICE)}), False):
            found = {key: Entry(data, 1) for key in work.keys}
            for write in work.make(found, _NOW, 300):
                assert write.value is None or (write.ttl >= 0 and len(write.value) <= max(300, len(data) + 40))
            work.done(results)
        items = results.inboxes.get(_DEVICE, [])
        assert [one.slot for one in items] == sorted({one.slot for one in items})
        assert all(one.expires > _NOW for one in items)


TARGETS: Final = (
    Target(
        "memcached-replies",
        replies,
        (router.store.memcached_protocol,),
        (
            b"\x20VALUE k 0 3 7\r\nabc\r\nVALUE l 0 0 8\r\n\r\nEND\r\n",
            b"\5STORED\r\nEXISTS\r\n",
            b"\7HD\r\nSERVER_ERROR out of memory storing object\r\n",
            b"\x09STAT version 1.6.18\r\nSTAT bytes 5\r\nEND\r\n",
        ),
        (b"VALUE ", b"END\r\n", b"STAT ", b"\r\n", b"STORED\r\n", b"NF\r\n", b" 0 1 2\r\n"),
    ),
    Target(
        "memcached-entries",
        entries,
        (router.store.memcached_work,),
        (
            msgspec.msgpack.encode([Item("a", 1, 2, _NOW + 5, 0, None), Item("b", 1, 3, _NOW - 5, 1, "x" * 300)]),
            bytes(8) + b"head" + b"m" * 16,
            (_NOW + 10).to_bytes(8, "big") + b"t" * 16 + b"value",
        ),
        (b"\x96", b"\xa1a", b"\xc0", b"\x92", (_NOW + 1).to_bytes(8, "big")),
    ),
)
