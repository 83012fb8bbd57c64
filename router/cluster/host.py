"""What a host says of itself, and what the records of the cluster mean for its routers and workers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from router import __version__
from router.cluster.membership import Check, Host, Snapshot
from router.common import peer_wire, wire
from router.common.cluster_settings import PORTS, ClusterOptions, joined, split
from router.common.curve import ClusterKey
from router.common.directory import Directory, HostRow, Placement
from router.common.options import Settings
from router.common.partitions import PARTITIONS
from router.common.settings import EndpointOptions, RouterOptions, TokenOptions
from router.common.token import parse_keys
from router.dialects import DialectSpec, spoken
from router.store.redis_keys import LAYOUT

_FINGERPRINT_BYTES: Final = 8
_SHOWN: Final = 200
"""A text that is longer is compared, and not shown."""


def own_record(
    settings: Settings, dialects: Iterable[DialectSpec], keys: Sequence[ClusterKey], host_id: str, workers: int
) -> Host:
    """The record of this host. dialects: those that are known; keys: of the cluster, the first is served."""
    options = settings.get(ClusterOptions)
    return Host(
        id=host_id,
        name=options.shown_name,
        address=options.advertised(0)[0],
        key=keys[0].id,
        version=__version__,
        workers=workers,
        checks=checks(settings, dialects, keys),
    )


def checks(settings: Settings, dialects: Iterable[DialectSpec], keys: Sequence[ClusterKey]) -> dict[str, Check]:
    """What has to be the same on all hosts. Secrets leave the host as fingerprints only, and what might be guessed is
    hashed with a key of the cluster: with each of them, so that hosts agree during a rotation."""
    tokens = [_fingerprint(key) for key in parse_keys(settings.get(TokenOptions).keys)]
    found = {
        "router.routers": _same(str(settings.get(RouterOptions).routers)),
        "number of partitions": _same(str(PARTITIONS)),
        "endpoint.url": _same(settings.get(EndpointOptions).url),
        "token.keys": Check(tuple(tokens[:1]), tuple(tokens)),
        "cluster.key": Check((keys[0].id,), tuple(key.id for key in keys)),
        "layout of the keys in Redis": _same(str(LAYOUT)),
        "version of the link": _same(*map(str, wire.VERSIONS)),
        "version of the link between routers": _same(*map(str, peer_wire.PEER_VERSIONS)),
        "dialects": _same(" ".join(sorted(spec.name for spec in spoken(settings, dialects)))),
    }
    for spec in spoken(settings, dialects):
        for name, content in spec.shared(settings).items():
            found[name] = _same(content) if isinstance(content, str) else _secret(content, keys)
    return found


def _same(*values: str) -> Check:
    """Hosts have to have one of them in common."""
    values = tuple(one if len(one) <= _SHOWN else _fingerprint(one.encode()) for one in values)
    return Check(values, values)


def _secret(content: bytes, keys: Sequence[ClusterKey]) -> Check:
    return _same(*(_fingerprint(content, key.client_secret) for key in keys))


def _fingerprint(content: bytes, key: bytes = b"") -> str:
    digest = blake2b(content, key=key, person=b"farm-same", digest_size=_FINGERPRINT_BYTES).hexdigest()
    return f"fingerprint {digest}"


def directory(snapshot: Snapshot, me: str) -> Directory:
    """What the routers and workers of this host are told: where routers are, and which hosts live."""
    placements = []
    for number, one in sorted(snapshot.placements.items()):
        member = snapshot.members.get(one.host)
        if member is not None:
            workers, peers = addresses(member.host, number)
            placements.append(Placement(number, one.epoch, one.host, workers, peers, member.host.key))
    hosts = [HostRow(name, one.host.name, one.host.workers) for name, one in sorted(snapshot.members.items())]
    return Directory(me, placements, hosts)


def addresses(host: Host, number: int) -> tuple[str, str]:
    """Where the router of this number is reached on that host, host:port: by workers, and by other routers."""
    name, port = split(host.address)
    return joined(name, port + PORTS * number), joined(name, port + PORTS * number + 1)
