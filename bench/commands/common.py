"""What the subcommands share: the options of the farm and of the load, and how a run is begun and reported."""

import resource
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from bench.connect import Target
from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.progress import Progress
from bench.report import document, show, write_json

REPORT_COLUMNS: Final = 120

Command = TypeVar("Command", bound=Callable[..., Any])


def farm_options(command: Command) -> Command:
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


def load_options(devices: int) -> Callable[[Command], Command]:
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


def target_of(farm: dict[str, Any]) -> Target:
    return Target(farm["url"], farm["admin"], farm["workers"], farm["store"], tuple(farm["settings"]))


def perform(
    command: str, options: dict[str, Any], run: Callable[[Interrupt, Progress], dict[str, Any]]
) -> dict[str, Any]:
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
