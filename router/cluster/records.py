"""What of a cluster is in Redis: commands made and replies read. Pure. See `cluster.lua`, and the table in
docs/architecture.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha1
from importlib import resources
from typing import Final, NamedTuple

import msgspec

from router.cluster.membership import FREE, MAX_HOSTS, Host, Member, Mine, Placement, Snapshot, State
from router.common import logs
from router.common import option_texts as texts
from router.common.cluster_settings import PORTS, split
from router.common.settings import MAX_ROUTERS
from router.store.base import StoreError
from router.store.redis_keys import bases
from router.store.redis_scripts import Script

_MAX_RECORD_BYTES: Final = 32_768
_NONE: Final = "-"
"""For FREE."""
_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(Host).decode

Command = tuple[bytes | str | int, ...]


class Action(NamedTuple):
    """Something that is done where it still can be."""

    what: str
    """take, give or gave."""
    number: int
    epoch: int = 0
    """Of the placement that is meant; of no meaning for take."""
    to: str = FREE


@cache
def cluster_script() -> Script:
    """All that is done with these records."""
    text = (resources.files("router.cluster") / "cluster.lua").read_text()
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


cluster_script()  # now: later the file may be replaced by that of another release


def keys(prefix: str) -> tuple[bytes, bytes, bytes]:
    """Names of the keys: hosts, routers, farm. They lie with the first partition, so in a cluster of Redis on one
    server."""
    base = bases(prefix)[0] + b"cluster:"
    return base + b"hosts", base + b"routers", base + b"farm"


def look(prefix: str, lease: float) -> Command:
    """Read all of it, for one that is no host."""
    return _call(prefix, "look", "", b"", lease, {}, ())


def beat(prefix: str, lease: float, host: Host, mine: Mapping[int, Mine], actions: Iterable[Action]) -> Command:
    """Renew what this host has, and do these things. lease: seconds."""
    return _call(prefix, "beat", host.id, _encode(host), lease, mine, actions)


def leave(prefix: str, lease: float, me: str) -> Command:
    """This host is none any more, and what it had is free."""
    return _call(prefix, "leave", me, b"", lease, {}, ())


def _call(
    prefix: str, what: str, me: str, record: bytes, lease: float, mine: Mapping[int, Mine], actions: Iterable[Action]
) -> Command:
    return (
        "EVALSHA",
        cluster_script().name,
        3,
        *keys(prefix),
        what,
        me,
        record,
        int(lease * 1000),
        MAX_HOSTS,
        len(mine),
        *(part for number, one in mine.items() for part in (number, one.epoch, int(one.ready))),
        *(part for one in actions for part in (one.what, one.number, one.epoch, one.to or _NONE)),
    )


def snapshot(reply: Sequence[object], routers: int, steady: bool) -> Snapshot:
    """What the script has answered. What in it cannot be read is logged and left out.

    Raises: StoreError.
    """
    match reply:
        case [bytes(now), bytes(clock), list(members), list(places)] if now.isdigit() and clock.isdigit():
            return Snapshot(
                int(now) / 1000,
                routers,
                {one.host.id: one for one in _members(members, int(clock), routers)},
                {one.number: one for one in _placements(places, routers)},
                steady,
            )
    raise StoreError(f"Redis: the answer about the hosts of the farm is not understood: {reply!r:.200}")


def _members(flat: Sequence[object], clock: int, routers: int) -> Iterator[Member]:
    for name, record, last, first in zip(*(flat[at::4] for at in range(4)), strict=False):
        try:
            assert isinstance(name, bytes)
            assert isinstance(record, bytes)
            if len(record) > _MAX_RECORD_BYTES:
                raise ValueError(f"{len(record)} bytes are too many")
            host = _decode(record)
            if host.id.encode() != name:
                raise ValueError(f"it is of {host.id}")
            name_or_address, port = split(host.address)
            texts.host(name_or_address)
            if not 0 < port <= 65_536 - PORTS * routers:
                raise ValueError(f"{host.address} has not as many ports as there are routers")
            beaten = int(last)
            yield Member(host, max(0.0, (clock - beaten) / 1000), beaten, int(first))
        except (msgspec.MsgspecError, ValueError, TypeError, AssertionError, RecursionError) as error:
            logs.limited("cluster.host_unread", at="error", host=_text(name), why=str(error))


def _placements(flat: Sequence[object], routers: int) -> Iterator[Placement]:
    for name, entry in zip(flat[::2], flat[1::2], strict=False):
        try:
            assert isinstance(name, bytes)
            assert isinstance(entry, bytes)
            number = int(name)
            epoch, host, state, to = entry.decode("ascii").split(" ")
            if not 0 <= number < min(routers, MAX_ROUTERS):
                continue  # of a time with more routers
            yield Placement(number, int(epoch), _id(host), State(state), _id(to))
        except (ValueError, AssertionError) as error:
            logs.limited("cluster.router_unread", at="error", router=_text(name), why=str(error))


def _id(text: str) -> str:
    return FREE if text == _NONE else text


def _text(name: object) -> str:
    return name.decode(errors="replace")[:64] if isinstance(name, bytes) else ""
