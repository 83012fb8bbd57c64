"""`farm bench`: the commands, their options and their exit codes."""

import math
import resource
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from bench import connect as connecting
from bench import push as pushing
from bench.errors import BenchError
from bench.fleet import Load
from bench.interrupt import Interrupt
from bench.progress import Progress
from bench.report import document, show, write_json

REPORT_COLUMNS: Final = 120
CHANNELS_PUSHED_TO: Final = 200_000
"""At most so many of the devices are pushed to, evenly spread over them: their endpoints have to be kept."""

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def main() -> None:
    """Measure a farm: how many devices it takes up, what one costs, how fast pushes reach them.

    Without --url each command starts a farm of its own on free ports of loopback, with its data in a
    temporary folder, and stops it at the end. The load runs on the same machine and shares its cores; every
    report says who used them, and whether the load itself was the limit.

    Exit code 0: done, nothing failed. 1: a device failed, an accepted push was lost, or the run could not
    go on. 2: bad arguments. Ctrl-C ends a run with what was measured so far, and exit code 1.
    """


def _farm_options(command: Command) -> Command:
    for option in reversed(
        (
            click.option("--url", default="", metavar="WS_URL", help="A farm that runs: ws://127.0.0.1:8080/"),
            click.option(
                "--admin",
                default="http://127.0.0.1:8082",
                show_default=True,
                metavar="URL",
                help="Its admin port, for /status. Empty: no memory and CPU of the farm.",
            ),
            click.option(
                "--workers", type=click.IntRange(1), default=2, show_default=True, help="Of the farm started."
            ),
            click.option(
                "--store",
                type=click.Choice(["sqlite", "memory"]),
                default="sqlite",
                show_default=True,
                help="Of the farm started.",
            ),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="KEY=VALUE",
                help="A setting for the farm started; repeatable.",
            ),
            click.option("--json", "json_file", default="", metavar="FILE", help="Write everything there, too."),
        )
    ):
        command = option(command)
    return command


def _load_options(devices: int) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--devices",
                    type=click.IntRange(1),
                    default=devices,
                    show_default=True,
                    help="Devices held.",
                ),
                click.option(
                    "--processes",
                    type=click.IntRange(0),
                    default=0,
                    help="Load processes of devices; by default one for every 18,000.",
                ),
                click.option(
                    "--timeout",
                    type=click.FloatRange(0.1),
                    default=30.0,
                    show_default=True,
                    metavar="SECONDS",
                    help="A device that is not set up by then has failed.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


@main.command()
@_load_options(10_000)
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
@_farm_options
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
        return connecting.run(_target(farm), load, hold=hold, baseline=baseline, interrupt=interrupt, progress=progress)

    options = {"devices": devices, "bare": bare, "rate": rate, "hold": hold, "processes": processes}
    body = _run("connect", options | farm, run)
    done = body["connect"]
    sys.exit(body["interrupted"] or done["setup"]["ready"] < devices or bool(done["drops"]))


@main.command()
@_load_options(15_000)
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
@_farm_options
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
        return pushing.run(_target(farm), load, plan, interrupt=interrupt, progress=progress)

    options: dict[str, Any] = {"devices": devices, "processes": processes, "connections": connections}
    options |= {"pushers": pushers, "seconds": seconds, "rate": rate, "half": half, "grace": grace}
    body = _run("push", options | farm, run)
    clean = all(done["clean"] and done["delivered"] for done in body["runs"])
    sys.exit(body["interrupted"] or body["setup"]["ready"] < devices or not clean)


def _target(farm: dict[str, Any]) -> connecting.Target:
    return connecting.Target(farm["url"], farm["admin"], farm["workers"], farm["store"], tuple(farm["settings"]))


def _run(command: str, options: dict[str, Any], run: Callable[[Interrupt, Progress], dict[str, Any]]) -> dict[str, Any]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt().on_signals())
            progress = stack.enter_context(Progress())
            result = run(interrupt, progress)
        body = document(command, options, result, interrupt.requested)
        if options["json_file"]:
            write_json(options["json_file"], body)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    console = Console()
    show(console if console.is_terminal else Console(width=REPORT_COLUMNS), body)
    return body


if __name__ == "__main__":
    main(prog_name="farm bench")
