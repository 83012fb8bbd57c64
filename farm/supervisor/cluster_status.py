"""What the status and the metrics show of a farm over many hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import Metric

from router.cluster.membership import Snapshot, isolated
from router.common.exposition import family
from router.common.metrics import Metric as Number

NOWHERE: Final = "nowhere"
"""State of a router that is on no host that lives."""
_OF_HOSTS: Final = (
    ("beat_age", Number("cluster_beat_age_seconds", "gauge", "Since the host's last beat in Redis.")),
    ("routers", Number("cluster_routers", "gauge", "Routers that are on the host.")),
    ("devices", Number("cluster_devices", "gauge", "Open device connections of the host, as it said last.")),
    ("isolated", Number("cluster_isolated", "gauge", "Whether the host is cut off from the others.")),
    ("leaving", Number("cluster_leaving", "gauge", "Whether the host is about to end.")),
    ("clock_offset", Number("cluster_clock_offset_seconds", "gauge", "How far Redis' clock is ahead of the host's.")),
)
_NOWHERE: Final = Number("cluster_routers_nowhere", "gauge", "Routers that are on no host.")
CLUSTER_METRICS: Final = (*(metric for _, metric in _OF_HOSTS), _NOWHERE)
"""Of a farm over several hosts; all but the last have the host as a label."""


def fields(snapshot: Snapshot, me: str, since: float) -> dict[str, Any]:
    """For the status: this host, all that live, and where each router is. since: seconds that this is old."""
    cut = isolated(snapshot)
    names = {name: one.host.name for name, one in snapshot.members.items()}
    placements: list[dict[str, Any]] = []
    for number in range(snapshot.routers):
        one = snapshot.placements.get(number)
        row: dict[str, Any] = {"number": number, "host": None, "state": NOWHERE, "epoch": one.epoch if one else 0}
        if one is not None and one.host in names:
            row |= {"host": names[one.host], "host_id": one.host, "state": str(one.state)}
        placements.append(row)
    hosts = [
        {
            "id": name,
            "name": one.host.name,
            "here": name == me,
            "address": one.host.address,
            "version": one.host.version,
            "workers": one.host.workers,
            "devices": one.host.devices,
            "routers": [row["number"] for row in placements if row.get("host_id") == name],
            "beat_age": round(one.age + since, 1),
            "isolated": name in cut,
            "leaving": one.host.leaving,
            "fit": one.host.fit,
            "clock_offset": one.host.clock_offset,
        }
        for name, one in sorted(snapshot.members.items(), key=lambda item: (item[1].host.name, item[0]))
    ]
    return {"host": me, "hosts": hosts, "placements": placements}


def cluster_families(cluster: Mapping[str, Any]) -> Iterator[Metric]:
    """The same as metrics: every host shows all of them."""
    hosts, placements = cluster["hosts"], cluster["placements"]
    count = Counter(host["name"] for host in hosts)
    labels = [[host["name"] if count[host["name"]] == 1 else f"{host['name']} {host['id']}"] for host in hosts]
    for name, metric in _OF_HOSTS:
        values = [float(len(host[name]) if name == "routers" else host[name]) for host in hosts]
        yield family(metric.kind, f"farm_{metric.name}", metric.help, ["host"], list(zip(labels, values, strict=True)))
    nowhere = float(sum(row["state"] == NOWHERE for row in placements))
    yield family(_NOWHERE.kind, f"farm_{_NOWHERE.name}", _NOWHERE.help, [], [([], nowhere)])
