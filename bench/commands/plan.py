"""`farm bench plan`: its options."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench.commands.common import perform
from bench.commands.numbers import Number
from bench.commands.options import output_options
from bench.figures import hosts_store as hosts_planning
from bench.figures import plan as planning
from bench.figures.profiles import MOST_A_WORKER, PROFILES, Profile, parse_memory
from bench.figures.results import read
from bench.interrupt import Interrupt
from bench.progress import Progress
from router.common.settings import MAX_ROUTERS

OWN = "custom"


def _count(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        return planning.parse_count(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _count_or_none(context: click.Context, parameter: click.Parameter, value: str) -> float | None:
    return _count(context, parameter, value) if value else None


def _size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if not value:
        return 0
    try:
        return parse_memory(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--devices", required=True, callback=_count, metavar="NUMBER", help="Devices connected: 31e6, 31M.")
@click.option(
    "--push-rate",
    default="0",
    callback=_count,
    metavar="NUMBER",
    help="Notifications a second, to all devices together.",
)
@click.option("--profile", type=click.Choice([*PROFILES]), default=None, help="The instance.")
@click.option("--memory", default="", callback=_size, metavar="SIZE", help="Or one of your own: 4GiB, 300MiB.")
@click.option("--cpus", type=Number(0.05, 1024), default=1.0, help="Virtual CPUs of that one.")
@click.option(
    "--result",
    "files",
    multiple=True,
    metavar="FILE",
    help="A result of connect, push, instances or cluster (their --json); repeatable.",
)
@click.option("--price", type=Number(0, 1e9), default=None, metavar="DOLLARS_A_MONTH", help="What an instance costs.")
@click.option(
    "--headroom",
    type=Number(0, 1, min_open=True),
    default=planning.HEADROOM,
    show_default=True,
    metavar="SHARE",
    help="Of a measured ceiling, of a router's pushes/s and of the CPU, only so much is used.",
)
@click.option(
    "--spare",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Instances that may fail while the rest still holds all devices within the headroom.",
)
@click.option(
    "--system",
    default="200MiB",
    show_default=True,
    callback=_size,
    metavar="SIZE",
    help="Memory that the instance's own system takes.",
)
@click.option(
    "--worker-devices",
    type=click.IntRange(1),
    default=MOST_A_WORKER,
    show_default=True,
    help="Devices that one worker may hold; 17,000 where the descriptor limit is 20,000 and can't be raised.",
)
@click.option(
    "--hosts",
    type=click.IntRange(0),
    default=None,
    metavar="N",
    help="The instances are hosts of one farm that share Redis or Valkey; 0: as many as the devices take.",
)
@click.option(
    "--routers",
    type=click.IntRange(0, MAX_ROUTERS),
    default=0,
    help="With --hosts: of the farm; by default one a host.",
)
@click.option(
    "--waiting",
    default="",
    callback=_count_or_none,
    metavar="NUMBER",
    help="With --hosts: messages that wait for devices; by default a tenth of the devices.",
)
@click.option(
    "--store-memory",
    default="16GiB",
    show_default=True,
    callback=_size,
    metavar="SIZE",
    help="With --hosts: of a server of Redis or Valkey.",
)
@click.option(
    "--store-price",
    type=Number(0, 1e9),
    default=None,
    metavar="DOLLARS_A_MONTH",
    help="With --hosts: what such a server costs.",
)
@click.option(
    "--copies",
    type=click.IntRange(1, 4),
    default=hosts_planning.COPIES,
    show_default=True,
    help="With --hosts: of what is stored, the primary's and its replicas'.",
)
@click.option(
    "--drain",
    type=Number(1),
    default=hosts_planning.DRAIN_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="With --hosts: over which the devices of a host are let go when it is replaced.",
)
@output_options
def plan(
    *,
    devices: float,
    push_rate: float,
    profile: str | None,
    memory: int,
    cpus: float,
    files: tuple[str, ...],
    price: float | None,
    headroom: float,
    spare: int,
    system: int,
    worker_devices: int,
    hosts: int | None,
    routers: int,
    waiting: float | None,
    store_memory: int,
    store_price: float | None,
    copies: int,
    drain: float,
    **output: Any,
) -> None:
    """How many instances a number of devices takes, from measured results.

    Says of every number whether it was measured, given, assumed, or extrapolated, and from what: instances,
    workers, memory, CPU, descriptors, time to bring all devices back, and what it costs.

    Each instance is a farm of its own; with --hosts they are hosts of one farm, and the plan also says: routers, links
    between processes, what is forwarded, servers of Redis and their memory, how long drains and reconnect storms
    take, and whether it should rather be several farms (cells).

    \b
    farm bench connect --devices 15000 --push 20000 --json measured.json
    farm bench plan --devices 31e6 --push-rate 2000 --profile r7g.large --result measured.json --price 80
    farm bench plan --devices 500k --memory 4GiB --cpus 2 --result measured.json --result pushed.json
    farm bench plan --devices 2M --profile t4g.small --headroom 0.6 --spare 2 --result instances.json
    farm bench push --store redis-replica --devices 15000 --online 0.7 --json stored.json
    farm bench plan --devices 31e6 --hosts 0 --profile r7g.large --result measured.json --result stored.json
    """
    if (profile is None) == (not memory):
        raise click.UsageError("give either --profile or --memory")
    if not 1 <= devices == int(devices):
        raise click.BadParameter("expected a whole number of at least 1", param_hint="--devices")
    kind = PROFILES[profile] if profile is not None else Profile(OWN, memory, cpus)
    farm = None
    if hosts is not None:
        farm = hosts_planning.HostsWish(hosts, routers, waiting, store_memory, store_price, copies, drain)
    wish = planning.Wish(int(devices), push_rate, kind, price, headroom, spare, system, worker_devices, farm)

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        names = [Path(file).name for file in files]
        short = len(set(names)) == len(names)
        return planning.run(
            wish, [(name if short else file, read(file)) for name, file in zip(names, files, strict=True)]
        )

    options = {"devices": int(devices), "push_rate": push_rate, "profile": kind.name, "memory": kind.memory}
    options |= {
        "cpus": kind.vcpus,
        "results": [Path(file).name for file in files],
        "price": price,
        "headroom": headroom,
        "spare": spare,
    }
    options |= {"system": system, "worker_devices": worker_devices}
    if farm is not None:
        options |= asdict(farm)
    perform("plan", options | output, run)
