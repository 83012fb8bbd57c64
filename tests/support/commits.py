"""What the tests of the committer commit."""

from router.common.item import Item
from router.store.base import Append
from support.common import Rig

DEVICE, OTHER = b"d" * 16, b"e" * 16
CHANNEL = b"c" * 16


def event(rig: Rig, body: str) -> Append:
    return Append(CHANNEL, rig.hub.messages.sequence(), int(rig.clock.unix()) + 60, body)


def item(rig: Rig, slot: str, version: int, ttl: int = 60, seq: int = 1) -> Item:
    return Item(slot, version, seq, int(rig.clock.unix()) + ttl, 0, None)
