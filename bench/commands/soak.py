"""`farm bench soak`: its options."""

import sys
from typing import Any

import click

from bench.commands.common import endpoints_every, perform, target_of
from bench.commands.numbers import Number
from bench.commands.options import connections_option, farm_options, grace_option, load_options
from bench.interrupt import Interrupt
from bench.load.protocols import REFERENCE
from bench.progress import Progress
from bench.runs import soak as soaking
from bench.runs.load import Load


@click.command()
@load_options(10_000)
@click.option("--hours", type=Number(0), default=8.0, show_default=True, help="How long.")
@click.option("--seconds", type=Number(0), default=0.0, help="How long, for a short one: instead of --hours.")
@click.option(
    "--churn",
    type=Number(0),
    default=20.0,
    show_default=True,
    help="Devices a second that lose their connection, at random; each comes back after --backoff.",
)
@click.option(
    "--rate",
    type=Number(0),
    default=100.0,
    show_default=True,
    help="Pushes a second to random devices, due at even steps. 0: none.",
)
@connections_option
@click.option(
    "--every",
    type=Number(0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two samples; a long run joins them, so that the result has 100 at most.",
)
@click.option(
    "--ping",
    type=Number(0),
    default=0.0,
    metavar="SECONDS",
    help="Each device pings so often; a farm closes those that ping more often than every "
    f"{REFERENCE.ping_seconds:g} s. By default never.",
)
@click.option(
    "--backoff",
    type=Number(0.01),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a device is away, half to one and a half times; doubled after every attempt that failed.",
)
@grace_option(10.0)
@click.option(
    "--max-slope",
    type=Number(0),
    default=2.0,
    show_default=True,
    metavar="MIB",
    help="Memory that router, workers or supervisor may grow by in an hour.",
)
@farm_options
def soak(
    *,
    devices: int,
    processes: int,
    timeout: float,
    hours: float,
    seconds: float,
    churn: float,
    rate: float,
    connections: int,
    every: float,
    ping: float,
    backoff: float,
    grace: float,
    max_slope: float,
    **farm: Any,
) -> None:
    """Let devices leave and return and push to them, for hours.

    Samples memory, descriptors, latency and connections over time and checks what became of each push. Fails
    (exit code 1) if one was lost, or if the memory of the router, the workers or the supervisor grows by
    more than --max-slope over the second half of the time; the first half is warm-up. 2 MiB an hour are
    1.4 GiB in a month: about what a machine of 8 GiB can spare until its next restart for a kernel update.
    Python takes memory in steps of a MiB, so that a run of less than some hours can't tell such a slope from
    none: it then says so, and neither passes nor fails for it. Ctrl-C ends with what was measured.

    \b
    farm bench soak --hours 24 --devices 15000
    farm bench soak --seconds 600 --every 5 --churn 100 --rate 1000 --max-slope 30
    farm bench soak --url ws://127.0.0.1:8080/ --admin http://127.0.0.1:8082 --json soak.json
    """
    load = Load(devices, processes=processes, timeout=timeout, endpoints_every=endpoints_every(devices), ping=ping)
    plan = soaking.Plan(
        seconds=seconds or hours * 3600,
        every=every,
        churn=churn,
        rate=rate,
        connections=connections,
        grace=grace,
        backoff=backoff,
        max_slope=max_slope,
    )

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        return soaking.run(target_of(farm, devices), load, plan, interrupt=interrupt, progress=progress)

    options: dict[str, Any] = {"devices": devices, "processes": processes, "seconds": plan.seconds, "churn": churn}
    options |= {"rate": rate, "connections": connections, "every": every, "ping": ping, "backoff": backoff}
    options |= {"grace": grace, "max_slope": max_slope}
    body = perform("soak", options | farm, run)
    done = body["soak"]
    short = body["setup"]["ready"] < devices
    sys.exit(body["interrupted"] or short or not done["clean"] or bool(done["grows"]))
