"""`farm bench connect`: its options."""

import sys
from typing import Any

import click

from bench import connect as connecting
from bench.commands.common import farm_options, load_options, perform, target_of
from bench.fleet import Load
from bench.interrupt import Interrupt
from bench.progress import Progress


@click.command()
@load_options(10_000)
@click.option(
    "--bare",
    is_flag=True,
    help="Upgrade only: no hello, no channel. A farm closes such devices when their hello is overdue.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=0.0,
    help="Set-ups begun a second; by default as fast as they go.",
)
@click.option(
    "--hold",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Silence before memory is read.",
)
@click.option(
    "--baseline/--no-baseline",
    default=True,
    show_default=True,
    help="Measure a plain trio-websocket server in the same run.",
)
@farm_options
def connect(
    *,
    devices: int,
    processes: int,
    timeout: float,
    bare: bool,
    rate: float,
    hold: float,
    baseline: bool,
    **farm: Any,
) -> None:
    """Hold silent devices, each with one registered channel.

    Reports set-ups a second (overall, and in the middle half of them), the time of one set-up, user and
    kernel memory a connection, the spread over the workers, and the same for a trio-websocket server as the
    baseline.

    \b
    farm bench connect --devices 15000
    farm bench connect --devices 100000 --rate 5000 --hold 120 --json held.json
    farm bench connect --url ws://127.0.0.1:8080/ --admin http://127.0.0.1:8082
    """
    load = Load(devices, bare, rate, processes, timeout=timeout)

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        return connecting.run(
            target_of(farm), load, hold=hold, baseline=baseline, interrupt=interrupt, progress=progress
        )

    options = {"devices": devices, "bare": bare, "rate": rate, "hold": hold, "processes": processes}
    body = perform("connect", options | farm, run)
    done = body["connect"]
    sys.exit(body["interrupted"] or done["setup"]["ready"] < devices or bool(done["drops"]))
