"""`farm bench soak`: its options."""

import sys
from typing import Any, Final

import click

from bench.commands.common import endpoints_every, perform, publish, target_of
from bench.commands.numbers import Number
from bench.commands.options import Command, connections_option, farm_options, grace_option, load_options
from bench.errors import BenchError
from bench.figures.creep import Limits
from bench.figures.results import Document, check_output, read, write_json
from bench.interrupt import Interrupt
from bench.load.protocols import REFERENCE
from bench.progress import Progress
from bench.runs import soak as soaking
from bench.runs.load import Load

DEFAULTS: Final = Limits()


def _limit_options(command: Command) -> Command:
    """`--max-slope` and its like: what may grow by how much in an hour."""
    for name, default, unit, text in reversed(
        (
            ("", DEFAULTS.memory, "MIB", "Memory that router, workers or supervisor may grow by in an hour."),
            (
                "descriptors-",
                DEFAULTS.descriptors,
                "COUNT",
                "Descriptors beyond the connections that they may grow by in an hour.",
            ),
            ("p50-", DEFAULTS.p50, "MS", "What the median of the latencies of pushes may grow by in an hour."),
            ("p99-", DEFAULTS.p99, "MS", "What their 99th percentile may grow by in an hour."),
        )
    ):
        option = click.option(
            f"--max-{name}slope", type=Number(0), default=default, show_default=True, metavar=unit, help=text
        )
        command = option(command)
    return command


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
@_limit_options
@click.option(
    "--judge",
    "judged",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Run nothing: judge the samples of this result of a soak again, by the four limits given here.",
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
    max_descriptors_slope: float,
    max_p50_slope: float,
    max_p99_slope: float,
    judged: str | None,
    **farm: Any,
) -> None:
    """Let devices leave and return and push to them, for hours.

    Samples memory, descriptors, latency and connections over time and checks what became of each push. Fails
    (exit code 1) if one was lost, or if something creeps: if the memory of the router, the workers or the supervisor,
    their descriptors beyond the connections, or the latency of pushes grows by more than its limit over the second
    half of the time; the first half is warm-up. 2 MiB an hour are 1.4 GiB in a month: about what a machine of 8 GiB
    can spare until its next restart for a kernel update; 10 descriptors are 7,200, and 0.25 ms are 180 ms.

    What a run can't tell it says, and neither passes nor fails for it. Python takes memory in steps of a MiB, one of
    which is up to 1.5 MiB an hour in the second half of two hours: such a run can tell no growth from 2 MiB an hour,
    and 1 from 2 takes one of four hours. Latency creeps, too, when the machine gets more to do beside the farm.
    Ctrl-C ends with what was measured.

    \b
    farm bench soak --hours 24 --devices 15000
    farm bench soak --seconds 600 --every 5 --churn 100 --rate 1000 --max-slope 30
    farm bench soak --judge soak.json --max-p99-slope 5 --out results
    farm bench soak --url ws://127.0.0.1:8080/ --admin http://127.0.0.1:8082 --json soak.json
    """
    limits = Limits(max_slope, max_descriptors_slope, max_p50_slope, max_p99_slope)
    limited = {"max_slope": max_slope, "max_descriptors_slope": max_descriptors_slope}
    limited |= {"max_p50_slope": max_p50_slope, "max_p99_slope": max_p99_slope}
    if judged:
        sys.exit(_failed(_judge_again(judged, limits, limited, farm)))
    load = Load(devices, processes=processes, timeout=timeout, endpoints_every=endpoints_every(devices), ping=ping)
    plan = soaking.Plan(
        seconds=seconds or hours * 3600,
        every=every,
        churn=churn,
        rate=rate,
        connections=connections,
        grace=grace,
        backoff=backoff,
        limits=limits,
    )

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        return soaking.run(target_of(farm, devices), load, plan, interrupt=interrupt, progress=progress)

    options: dict[str, Any] = {"devices": devices, "processes": processes, "seconds": plan.seconds, "churn": churn}
    options |= {"rate": rate, "connections": connections, "every": every, "ping": ping, "backoff": backoff}
    options |= {"grace": grace, **limited}
    sys.exit(_failed(perform("soak", options | farm, run)))


def _failed(body: Document) -> bool:
    done = body["soak"]
    short = body["setup"]["ready"] < done["devices"]
    return body["interrupted"] or short or not done["clean"] or bool(done["grows"])


def _judge_again(file: str, limits: Limits, limited: dict[str, float], outputs: dict[str, Any]) -> Document:
    """The document of `file` with verdicts by these limits, printed and written where the options say; when, where and
    by which commit it was measured stays."""
    try:
        check_output(outputs["json_file"], outputs["out_folder"], outputs["out_name"] or "soak")
        body = soaking.judged_again(read(file), limits, limited)
        if outputs["json_file"]:
            write_json(outputs["json_file"], body)
        publish(body, outputs["out_folder"], outputs["out_name"] or "soak", outputs["pictures"])
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    return body
