"""`farm bench storm`: its options."""

import sys
from typing import Any, Final

import click

from bench.commands.common import endpoints_every, perform, target_of
from bench.commands.numbers import Number
from bench.commands.options import connections_option, farm_options, grace_option, load_options
from bench.interrupt import Interrupt
from bench.progress import Progress
from bench.runs import storm as storming
from bench.runs.load import Load

JITTERS: Final = {"off": (False,), "on": (True,), "both": (False, True)}


@click.command()
@load_options(10_000)
@click.option(
    "--jitter",
    type=click.Choice(list(JITTERS)),
    default="both",
    show_default=True,
    help="Delays from half to one and a half times as long, at random; both: one storm without and one with.",
)
@click.option(
    "--backoff",
    type=Number(0.01),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a device waits before it comes back; doubled after every attempt that failed.",
)
@click.option(
    "--backoff-cap",
    type=Number(0.01),
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
    help="The longest such wait.",
)
@click.option(
    "--rate",
    type=Number(0),
    default=200.0,
    show_default=True,
    help="Pushes a second, all the time, due at even steps. 0: none.",
)
@connections_option
@click.option(
    "--calm",
    type=Number(0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Pushes before the cut, and again after all are back.",
)
@click.option(
    "--limit",
    type=Number(1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="A device that is not back by then never is.",
)
@grace_option(10.0)
@click.option(
    "--stay",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="DEVICES",
    help="So many more are not cut off, and get pushes at the same rate: what the storm does to them.",
)
@click.option(
    "--restart",
    is_flag=True,
    help="Kill the farm's workers (SIGKILL) instead: the storm hits those that are started anew.",
)
@farm_options
def storm(
    *,
    devices: int,
    processes: int,
    timeout: float,
    jitter: str,
    backoff: float,
    backoff_cap: float,
    rate: float,
    connections: int,
    calm: float,
    limit: float,
    grace: float,
    stay: int,
    restart: bool,
    **farm: Any,
) -> None:
    """Cut all devices off at once, and see them come back while app servers push on.

    Each device resets its connection at the same moment and comes back at its client's backoff: after 5
    seconds, then 10, 20 and so on, as Firefox does, which has no jitter; then it says hello and gets what it
    missed. Reports when 50, 95, 99 and all per cent are back and have it, what app servers saw before,
    meanwhile and after, attempts, CPU, and what was lost; and, of the devices that are not cut off, how long
    pushes took to reach them. Exit code 1 if anything was lost, or a device did not come back.

    \b
    farm bench storm --devices 15000
    farm bench storm --devices 100000 --jitter off --rate 1000
    farm bench storm --restart --backoff 1 --json storm.json
    """
    if restart and farm["url"]:
        raise click.UsageError("--restart kills workers: only those of a farm that the bench starts, so not with --url")
    load = Load(devices, processes=processes, timeout=timeout, endpoints_every=endpoints_every(devices))
    plan = storming.Plan(
        rate=rate,
        connections=connections,
        calm=calm,
        limit=limit,
        grace=grace,
        backoff=backoff,
        cap=max(backoff, backoff_cap),
        jitters=JITTERS[jitter],
        restart=restart,
        stay=0 if restart else stay,
    )

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        return storming.run(target_of(farm, devices + plan.stay), load, plan, interrupt=interrupt, progress=progress)

    options: dict[str, Any] = {"devices": devices, "processes": processes, "jitter": jitter, "backoff": backoff}
    options |= {"backoff_cap": backoff_cap, "rate": rate, "connections": connections, "calm": calm}
    options |= {"limit": limit, "grace": grace, "stay": stay, "restart": restart}
    body = perform("storm", options | farm, run)
    short = body["setup"]["ready"] < devices
    sys.exit(body["interrupted"] or short or not all(done["clean"] for done in body["storms"]))
