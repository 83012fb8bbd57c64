"""`farm bench cluster`: its options."""

import sys
from typing import Any, Final

import click

from bench.cluster_process import MOST_HOSTS
from bench.commands.common import endpoints_every, in_turn, perform
from bench.commands.numbers import Number
from bench.commands.options import connections_option, grace_option, load_options, output_options
from bench.figures.dialects import ALL, CLUSTER_FIGURES, parts_of
from bench.interrupt import Interrupt
from bench.load.reconnect import Backoff
from bench.progress import Progress
from bench.runs import cluster as clustering
from bench.runs.app_servers import PushPlan
from bench.runs.load import Load
from bench.store_servers.choices import CHOICES
from router.common.settings import MAX_ROUTERS

STORES: Final = {name: choice for name, choice in CHOICES.items() if choice.kind == "redis"}
DEFAULT: Final = "redis-replica"


@click.command()
@load_options(3000)
@click.option("--hosts", type=click.IntRange(1, MOST_HOSTS), default=3, show_default=True, help="Of the farm.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Of each host.")
@click.option(
    "--routers",
    type=click.IntRange(0, MAX_ROUTERS),
    default=0,
    help="Of the farm; by default, and at least, one a host.",
)
@click.option(
    "--store",
    "stores",
    type=click.Choice([*STORES, ALL]),
    multiple=True,
    default=[DEFAULT],
    show_default=True,
    help="What all hosts share; its servers are started, too. Repeatable, and then one after the other, each with "
    f"fresh hosts. What is accepted is {'; '.join(f'{name}: {choice.promise}' for name, choice in STORES.items())}.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of all hosts; repeatable.")
@click.option(
    "--idle",
    type=Number(0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="The hosts are left alone before the devices come: what links and leases take. 0: no.",
)
@connections_option
@click.option("--seconds", type=Number(0.1), default=5.0, show_default=True, help="Pushes flat out, to all hosts.")
@click.option(
    "--forward",
    type=Number(0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Length of each run that pushes to the same addresses through the host that has their router, or through "
    "another one. 0: none.",
)
@click.option("--repeat", type=click.IntRange(1), default=2, show_default=True, help="How often these two take turns.")
@click.option(
    "--rate",
    type=Number(0),
    default=200.0,
    show_default=True,
    help="Pushes a second through the other hosts while one is killed (SIGKILL). 0: none is killed.",
)
@click.option(
    "--calm",
    type=Number(0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Pushes before a host is killed, and again after all is well.",
)
@click.option(
    "--limit",
    type=Number(1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the bench waits for routers and devices then.",
)
@click.option(
    "--backoff",
    type=Number(0.01),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a device waits before it comes back, to another host, with jitter; doubled after every attempt that "
    "failed.",
)
@grace_option(10.0)
@output_options
def cluster(
    *,
    devices: int,
    processes: int,
    timeout: float,
    hosts: int,
    workers: int,
    routers: int,
    stores: tuple[str, ...],
    settings: tuple[str, ...],
    idle: float,
    connections: int,
    seconds: float,
    forward: float,
    repeat: int,
    rate: float,
    calm: float,
    limit: float,
    backoff: float,
    grace: float,
    **output: Any,
) -> None:
    """Start several hosts on this machine that are one farm, load them, and kill one.

    Each host is a farm start with a data folder and an address of loopback of its own (127.0.0.2, 127.0.0.3, ...); all
    share Redis or Valkey, perhaps with a replica. Devices spread over the hosts. In this order:

    \b
    idle     the hosts are left alone: CPU and memory of links and leases
    pushes   to all devices, flat out, over all hosts: what that store and its durability allow
    forward  to the same addresses through the host that has their router, and through another
    lost     SIGKILL to all processes of a host while pushes go on through the others: when its
             routers are elsewhere, when pushes to them are accepted again, when its devices are
             back, and whether anything that was accepted is missing

    All hosts share the cores of this machine, so pushes a second are less than hosts of their own would reach; CPU a
    push, times and losses count. What a device takes of the memory of Redis is shown, too. Exit code 1 if anything
    was lost, or a device or a router did not come back.

    \b
    farm bench cluster
    farm bench cluster --store redis --store redis-replica --store valkey-replica --seconds 10
    farm bench cluster --hosts 5 --devices 20000 --rate 500 --backoff 5 --out results
    farm bench cluster --forward 0 --rate 0 --idle 30 --hosts 8
    """
    chosen = [*STORES] if ALL in stores else list(dict.fromkeys(stores))
    routers = routers or hosts
    if routers < hosts:
        raise click.BadParameter(
            f"{hosts} hosts take at least {hosts}: a host without a router takes no pushes", param_hint="--routers"
        )
    load = Load(devices, processes=processes, timeout=timeout, endpoints_every=endpoints_every(devices))
    plan = clustering.Plan(
        hosts,
        workers,
        routers,
        settings,
        idle,
        PushPlan(connections, seconds=seconds, grace=grace),
        forward,
        repeat,
        rate,
        calm,
        limit,
        grace,
        Backoff(backoff, max(backoff, 60.0), jitter=True),
    )

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        def through(store: str) -> dict[str, Any]:
            done = clustering.run(store, load, plan, interrupt=interrupt, progress=progress)
            return done | ({"variant": store} if len(chosen) > 1 else {})

        return in_turn(chosen, CLUSTER_FIGURES, interrupt, through, len(chosen) > 1)

    options: dict[str, Any] = {"devices": devices, "processes": processes, "hosts": hosts, "workers": workers}
    options |= {"routers": routers, "stores": chosen, "settings": list(settings), "idle": idle}
    options |= {"connections": connections, "seconds": seconds, "forward": forward, "repeat": repeat, "rate": rate}
    options |= {"calm": calm, "limit": limit, "backoff": backoff, "grace": grace, "timeout": timeout}
    body = perform("cluster", options | output, run)
    sys.exit(body["interrupted"] or not all(_as_it_should_be(part, devices, hosts, rate) for part in parts_of(body)))


def _as_it_should_be(part: dict[str, Any], devices: int, hosts: int, rate: float) -> bool:
    """Whether all devices came up, nothing was lost, and a host that was killed was made good."""
    forward, lost = part["forward"], part["lost"]
    runs = [*part["runs"], *(forward["owner"] + forward["other"] if forward else [])]
    if part["setup"]["ready"] < devices or not all(run["clean"] and run["delivered"] for run in runs):
        return False
    if not rate or hosts == 1:
        return True
    return bool(lost and lost["clean"] and lost["placed_seconds"] is not None and lost["accepted_seconds"]["first"])
