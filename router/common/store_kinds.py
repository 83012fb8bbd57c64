"""The stores that there are, and what each can do. Light: a store's module is imported when it is opened.

A store that is added is a line in `KINDS` and a module with `new_store` and `keeps`, as `router.store.registry` has
them. A dialect says what it needs (`DialectSpec.needs`); one that needs more than the store has is refused at start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Shape(Enum):
    """What a store may be able to keep, or to do with it. The value is what it has where an error says so."""

    INBOX = "inboxes of devices"
    """Items by slot, of which the last one put replaces the others; removed up to a version."""
    COLLAPSE = "inboxes in which items replace others and give their place to more urgent ones"
    """Besides: slots by collapse key, urgency and eviction, order of arrival, and parts of an inbox."""
    LOG = "logs of channels"
    """Events by offset, read from every kind of position (`router.common.position`)."""
    TABLE = "records by key"
    """Each perhaps with an expiry, which may be renewed."""
    TAKE_ONCE = "records that change by what they hold"
    """Take once, put if absent, put if newer (`router.store.changes`)."""
    SETS = "sets of IDs"
    """Add to a set and remove from it, in one step."""


@dataclass(frozen=True, slots=True)
class StoreKind:
    """One value of `store.kind`."""

    name: str
    help: str
    """What it is for an operator, in a few words."""
    module: str
    can: frozenset[Shape]
    apart: bool = False
    """Whether each router has a store of its own, with an equal part of what `store.max_bytes` allows."""
    files: bool = False
    """Whether each router has a file of its own, so that another number of routers needs other files."""
    backup: str = ""
    """How it is backed up, where `farm backup` cannot do it: what it is, and what to do."""


KINDS: Final = (
    StoreKind("sqlite", "durable, in the data folder", "router.store.sqlite", frozenset(Shape), apart=True, files=True),
    StoreKind(
        "redis",
        "durable, in Redis or Valkey (redis.url)",
        "router.store.redis",
        frozenset(Shape),
        backup="the store is the server of redis.url: copy its append-only files as its manual says, or its snapshot "
        "after BGSAVE, or use the snapshots of a managed service",
    ),
    StoreKind(
        "memory",
        "lost with the router",
        "router.store.memory",
        frozenset(Shape),
        apart=True,
        backup="the store is in the memory of the routers, and nothing of it is kept",
    ),
    StoreKind(
        "memcached",
        "lost with memcached, for dialects that survive that",
        "router.store.memcached",
        frozenset((Shape.INBOX, Shape.TABLE, Shape.TAKE_ONCE, Shape.SETS)),
        backup="the store is memcached, which keeps nothing beyond its end and has no backup",
    ),
)
NAMES: Final = tuple(kind.name for kind in KINDS)
HELP: Final = "; ".join(f"{kind.name}: {kind.help}" for kind in KINDS)


def by_name(name: str) -> StoreKind:
    """The kind of this name.

    Raises: KeyError.
    """
    return {kind.name: kind for kind in KINDS}[name]


def refusal(dialect: str, needs: Iterable[Shape], name: str) -> str:
    """Why a store of this name is not enough for a dialect, and what to do about it, in one line; "" if it is."""
    wanted = frozenset(needs)
    missing = [shape for shape in Shape if shape in wanted - by_name(name).can]
    if not missing:
        return ""
    others = " or ".join(kind.name for kind in KINDS if wanted <= kind.can)
    instead = f"choose store.kind = {others}, or " if others else ""
    what = ", ".join(shape.value for shape in missing)
    return f"dialects.{dialect} needs a store with {what}, and {name} has none; {instead}turn dialects.{dialect} off"
