"""`farm bench push`: its options."""

import math
import sys
from typing import Any, Final

import click

from bench import push as pushing
from bench.commands.common import farm_options, load_options, perform, target_of
from bench.fleet import Load
from bench.interrupt import Interrupt
from bench.progress import Progress

CHANNELS_PUSHED_TO: Final = 200_000
"""At most so many of the devices are pushed to, evenly spread over them: their endpoints have to be kept."""


@click.command()
@load_options(15_000)
@click.option(
    "--connections",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Keep-alive HTTP connections of app servers.",
)
@click.option("--pushers", type=click.IntRange(1), default=1, show_default=True, help="Load processes of app servers.")
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Length of a run.")
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=0.0,
    help="Pushes a second, due at even steps; latency counts from when a push was due. By default flat out.",
)
@click.option("--half", is_flag=True, help="A second run, at half of the rate that the first reached.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="An accepted push that has not arrived by then is lost.",
)
@click.option(
    "--endpoint",
    default="",
    metavar="URL",
    help="Push here instead of where the endpoints point: http://host:port",
)
@farm_options
def push(
    *,
    devices: int,
    processes: int,
    timeout: float,
    connections: int,
    pushers: int,
    seconds: float,
    rate: float,
    half: bool,
    grace: float,
    endpoint: str,
    **farm: Any,
) -> None:
    """Push to random devices and count what arrives.

    Devices acknowledge every notification. Reports notifications a second, what was answered, percentiles
    from the PUT to the frame at the device and to the answer, what was lost or came twice, and the CPU that
    each part used.

    \b
    farm bench push --devices 15000 --half
    farm bench push --store memory --connections 256 --seconds 30
    farm bench push --rate 5000 --json pushed.json
    """
    every = math.ceil(devices / CHANNELS_PUSHED_TO)
    load = Load(devices, processes=processes, timeout=timeout, endpoints_every=every)
    plan = pushing.Plan(connections, pushers, seconds, rate, half, grace, endpoint)

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        return pushing.run(target_of(farm), load, plan, interrupt=interrupt, progress=progress)

    options: dict[str, Any] = {"devices": devices, "processes": processes, "connections": connections}
    options |= {"pushers": pushers, "seconds": seconds, "rate": rate, "half": half, "grace": grace}
    body = perform("push", options | farm, run)
    clean = all(done["clean"] and done["delivered"] for done in body["runs"])
    sys.exit(body["interrupted"] or body["setup"]["ready"] < devices or not clean)
