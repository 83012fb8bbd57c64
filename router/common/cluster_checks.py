"""What settings a cluster needs, held against those that there are."""

from __future__ import annotations

from router.common.cluster_settings import ClusterOptions, any_address, split
from router.common.curve import load
from router.common.errors import MendableError
from router.common.options import Settings
from router.common.settings import EndpointOptions, RouterOptions, StoreOptions, TokenOptions


def problems(settings: Settings) -> list[str]:
    """Why these settings are none for a cluster, each with what to do, in one line; none if it is not enabled."""
    options = settings.get(ClusterOptions)
    if not options.enabled:
        return []
    found = []
    if (kind := settings.get(StoreOptions).kind) != "redis":
        found.append(f"cluster.enabled needs store.kind = redis, which all hosts share, and it is {kind}")
    if not settings.get(TokenOptions).keys:
        found.append("cluster.enabled needs token.keys, the same on all hosts; make a key with `farm token-key`")
    if not settings.get(EndpointOptions).url:
        found.append(
            "cluster.enabled needs endpoint.url, the same on all hosts: where app servers reach the farm, "
            "e.g. https://push.example.org"
        )
    found += _addresses(options, settings.get(RouterOptions).routers)
    try:
        load(settings)
    except MendableError as error:
        found += error.problems
    return found


def problems_alone(settings: Settings) -> list[str]:
    """The same for a router or a worker that is to run without a supervisor."""
    if not settings.get(ClusterOptions).enabled:
        return []
    return ["cluster.enabled: where routers run is for a supervisor to say; use `farm start`"]


def _addresses(options: ClusterOptions, routers: int) -> list[str]:
    if not options.bind:
        return ["cluster.enabled needs cluster.bind: an address of this host and a port, e.g. 10.0.0.2:7400"]
    found = []
    host, port = split(options.bind)
    last = split(options.listens(routers - 1)[1])[1]
    if last > 65_535:
        found.append(
            f"cluster.bind: with router.routers = {routers} ports {port} to {last} are needed; choose a lower one"
        )
    if not options.advertise and any_address(host):
        found.append(
            f"cluster.bind = {options.bind} is every address of this host: name in cluster.advertise the one by which "
            "the others reach it"
        )
    if any_address(options.advertise):
        found.append(f"cluster.advertise = {options.advertise} is no address that another host can connect to")
    return found
