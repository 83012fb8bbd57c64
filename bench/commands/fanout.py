"""`farm bench fanout`: its options."""

import sys
from dataclasses import replace
from typing import Any

import click

from bench.commands.common import in_turn, perform, speaking, target_of
from bench.commands.numbers import Number
from bench.commands.options import connections_option, fan_out_options, farm_options, source_option
from bench.figures.dialects import FANOUT_FIGURES, parts_of
from bench.interrupt import Interrupt
from bench.load.protocols import FAN_OUTS
from bench.progress import Progress
from bench.runs import fanout as fanning
from bench.runs.deliveries import clean
from bench.runs.load import Load
from bench.runs.speaking import Speaking


@click.command()
@click.option(
    "--subscribers", type=click.IntRange(1), default=15_000, show_default=True, help="Devices, each on one channel."
)
@click.option("--seconds", type=Number(0.1), default=10.0, show_default=True, help="Length of a run.")
@click.option(
    "--rate",
    type=Number(0),
    default=0.0,
    help="A further run, with so many events a second, due at even steps; latency counts from when one was due.",
)
@click.option("--flat-out/--no-flat-out", default=True, show_default=True, help="A run as fast as it goes.")
@click.option(
    "--in-flight",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    metavar="EVENTS",
    help="Flat out: events under way at once, for each channel; the next is sent when subscribers have the last ones.",
)
@connections_option
@click.option(
    "--timeout",
    type=Number(0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="A subscriber that is not set up by then has failed.",
)
@source_option
@fan_out_options(list(FAN_OUTS), list(FAN_OUTS)[:1], grace=5.0)
@farm_options
def fanout(
    *,
    subscribers: int,
    channels: int,
    payload: int,
    seconds: float,
    rate: float,
    flat_out: bool,
    in_flight: int,
    connections: int,
    grace: float,
    processes: int,
    timeout: float,
    sources: tuple[str, ...],
    router: str,
    dialects: tuple[str, ...],
    modes: tuple[str, ...],
    apps: str,
    mixed: bool,
    **farm: Any,
) -> None:
    """Send events to channels with many subscribers and count what arrives at each of them.

    Devices of a dialect with channels subscribe; app servers post events to the router port, each to one of the
    channels, a random one. Reports deliveries a second, CPU of a million of them, percentiles from the POST to the
    moment at which the last subscriber's socket has the event, and what was lost, came twice, or in another order than
    it was sent. Every byte that comes is compared with what has to come.

    Flat out the next event is sent when subscribers have the ones before: an app server is answered long before that.
    With --rate it is sent when it is due, whatever became of the others.

    \b
    farm bench fanout --rate 5
    farm bench fanout --subscribers 15000 --channels 1500 --seconds 20
    farm bench fanout --url ws://127.0.0.1:8080/ --apps apps.json --json fanout.json
    """
    if not dialects:
        raise click.UsageError("there is no dialect whose events go to many subscribers")
    if channels > subscribers:
        raise click.BadParameter("a channel without a subscriber gets nothing", param_hint="--channels")
    if not flat_out and not rate:
        raise click.BadParameter("nothing to do without --rate", param_hint="--no-flat-out")
    spoken = speaking(dialects, modes, farm["url"], apps, mixed)
    load = Load(subscribers, processes=processes, timeout=timeout, sources=sources, payload=payload)
    plan = fanning.Plan(channels, flat_out, rate, seconds, in_flight, connections, payload, grace)
    if farm["url"]:
        plan = replace(plan, router=router)

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        def one(what: Speaking) -> dict[str, Any]:
            return fanning.run(target_of(farm, subscribers), load, plan, what, interrupt=interrupt, progress=progress)

        return in_turn(spoken, FANOUT_FIGURES, interrupt, one, len(spoken) > 1)

    options: dict[str, Any] = {"subscribers": subscribers, "channels": channels, "payload": payload}
    options |= {"dialect": " ".join(dialects), "mode": "mixed" if mixed else " ".join(modes)}
    options |= {"seconds": seconds, "rate": rate, "flat_out": flat_out, "in_flight": in_flight}
    options |= {"connections": connections, "grace": grace, "processes": processes, "sources": len(sources)}
    body = perform("fanout", options | farm, run)
    sys.exit(body["interrupted"] or not all(map(_as_it_should_be, parts_of(body))))


def _as_it_should_be(body: dict[str, Any]) -> bool:
    """Whether all subscribers came up and stayed, and got whatever was accepted."""
    up = body["setup"]["ready"] == body["setup"]["wanted"]
    return up and all(clean(run) for run in body["runs"])
