"""What `farm doctor` looks at on a host of a cluster: its ports, its clock, and what it shares with the other hosts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import trio

from farm.dialects import specs
from farm.machine import Machine
from router.cluster import host as records
from router.cluster.membership import Host, Snapshot, disagreements, new_id
from router.cluster.registry import Registry
from router.common.cluster_settings import ClusterOptions, joined, split
from router.common.curve import load
from router.common.errors import MendableError
from router.common.options import Settings
from router.common.settings import RouterOptions
from router.store.base import StoreError
from router.store.findings import Finding
from router.store.lease import MAX_OFFSET_S

_CONNECT_S: Final = 1.0
_NEEDED_S: Final = f"at most {MAX_OFFSET_S:g} s from that of Redis"


def findings(settings: Settings, machine: Machine, running: int | None) -> Iterator[Finding]:
    """What is found with these settings; nothing on a host that is a farm of its own. running: pid of the farm that
    runs on the same data folder, None if there is none."""
    if not settings.get(ClusterOptions).enabled:
        return
    try:
        keys = load(settings)
        record = records.own_record(settings, specs(), keys, new_id(), 0)
    except (MendableError, ValueError) as error:
        yield Finding("cluster.key", "fail", str(error), "the key of all hosts")
        return
    shown = " and ".join(key.id for key in keys)
    yield Finding("cluster.key", "ok", f"fingerprint {shown}", "one that all hosts have")
    yield from _ports(settings, machine, running)
    try:
        snapshot, offset = _look(settings, record)
    except StoreError as error:
        yield Finding("cluster", "fail", str(error), "Redis, with the hosts of the cluster", "see the row of the store")
        return
    off = abs(offset) > MAX_OFFSET_S
    remedy = "a clock that is kept right: chrony, or systemd-timesyncd" if off else ""
    yield Finding("clock", "fail" if off else "ok", f"{offset:+.2f} s", _NEEDED_S, remedy)
    yield from _hosts(snapshot, record)


def _look(settings: Settings, record: Host) -> tuple[Snapshot, float]:
    """What is in Redis, and by how much its clock is ahead. Raises: StoreError."""
    registry = Registry(settings, record)

    async def look() -> Snapshot:
        try:
            return await registry.look()
        finally:
            registry.close()

    return trio.run(look), registry.clock_offset


def _ports(settings: Settings, machine: Machine, running: int | None) -> Iterator[Finding]:
    options, name = settings.get(ClusterOptions), "cluster.bind"
    places = [split(one) for number in range(settings.get(RouterOptions).routers) for one in options.listens(number)]
    host, first, last = places[0][0], places[0][1], places[-1][1]
    found = f"{joined(host, first)} to {last}"
    for host, port in places:
        error = machine.bind_error(host, port)
        if error is None:
            continue
        if error.errno == errno.EADDRINUSE and running is not None:
            yield Finding(name, "ok", f"{found}: held by the farm that runs ({running})", "free")
        else:
            remedy = "an address of this host, and ports that are free: --set cluster.bind=..."
            yield Finding(name, "fail", f"{joined(host, port)}: {error.strerror}", "free", remedy)
        return
    yield Finding(name, "ok", f"{found} are free", "free")


def _hosts(snapshot: Snapshot, record: Host) -> Iterator[Finding]:
    """The hosts that live: whether this one agrees with them, and reaches their routers."""
    others = [one.host for one in snapshot.members.values() if one.host.address != record.address]
    if not others:
        yield Finding("cluster", "ok", "no other host lives", "")
    for other in sorted(others, key=lambda other: other.name):
        name = f"host {other.name}"
        if differing := disagreements(record, other):
            needed = "the same on all hosts"
            yield Finding(name, "fail", f"has another {' and another '.join(differing)}", needed, f"see {differing[0]}")
            continue
        numbers = [number for number, one in sorted(snapshot.placements.items()) if one.host == other.id]
        closed = [place for number in numbers for place in records.addresses(other, number) if not _answers(place)]
        if closed:
            remedy = "a network, and a firewall, that let hosts reach each other's ports of cluster.bind"
            yield Finding(name, "fail", f"{' and '.join(closed)} cannot be connected to", "within 1 s", remedy)
        else:
            routers = " ".join(map(str, numbers)) or "none"
            yield Finding(name, "ok", f"agrees and is reached; its routers: {routers}", "the same settings, and a way")


def _answers(place: str) -> bool:
    with suppress(OSError):
        socket.create_connection(split(place), _CONNECT_S).close()
        return True
    return False
