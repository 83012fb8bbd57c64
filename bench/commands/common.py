"""What the subcommands share: the options of the farm and of the load, and how a run is begun and reported."""

import math
import resource
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from bench.commands.numbers import Number
from bench.errors import BenchError
from bench.figures.dialects import ALL, Figure, ratios
from bench.figures.profiles import workers_for
from bench.figures.results import Document, check_output, document, shown, write_json
from bench.interrupt import Interrupt
from bench.load.dialect import Dialect
from bench.load.protocols import DIALECTS, FAN_OUTS, REFERENCE
from bench.load.sockets import sources_in
from bench.machine import procfs
from bench.progress import Progress
from bench.render import terminal
from bench.render.folder import write
from bench.runs.speaking import Speaking
from bench.target import Target

REPORT_COLUMNS: Final = 120
LEAST_WORKERS: Final = 2
SPARE_FILES: Final = 10_000
MOST_CHANNELS: Final = 1000
CHANNELS_PUSHED_TO: Final = 200_000
"""At most so many channels are pushed to, of devices evenly spread over all: their endpoints have to be kept."""

Command = TypeVar("Command", bound=Callable[..., Any])
Spoken = TypeVar("Spoken")


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
                "--workers",
                type=click.IntRange(0),
                default=0,
                help="Of the farm started; by default two, or as many as the devices need for their descriptors.",
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
        )
    ):
        command = option(command)
    return output_options(command)


def output_options(command: Command) -> Command:
    """`--json`, `--out`, `--name` and `--no-pictures`: where `perform` writes the results."""
    for option in reversed(
        (
            click.option("--json", "json_file", default="", metavar="FILE", help="Write everything there, too."),
            click.option(
                "--out",
                "out_folder",
                default="",
                metavar="DIR",
                help="Write NAME.json, NAME.md and pictures (NAME-1.png, NAME-1.svg, ...) there, too.",
            ),
            click.option("--name", "out_name", default="", help="NAME of those files; by default the command's."),
            click.option(
                "--pictures/--no-pictures",
                "pictures",
                default=True,
                help="Whether --out writes pictures, too; `farm bench report` draws them whenever they are wanted.",
            ),
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
                    type=Number(0.1),
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


def channels_option(command: Command) -> Command:
    """`--channels`: for commands whose devices may register several."""
    return click.option(
        "--channels",
        type=click.IntRange(1, MOST_CHANNELS),
        default=1,
        show_default=True,
        help="Channels that each device registers.",
    )(command)


def connections_option(command: Command) -> Command:
    """`--connections`: for commands that push."""
    return click.option(
        "--connections",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Keep-alive connections of app servers.",
    )(command)


def grace_option(seconds: float) -> Callable[[Command], Command]:
    """`--grace`: for commands that check what became of each push."""
    return click.option(
        "--grace",
        type=Number(0),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="An accepted push that a connected device has not got by then is lost.",
    )


def source_option(command: Command) -> Command:
    """`--source`: for commands whose connections may need more ports than one address has. Gives a tuple of
    addresses."""
    return click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="ADDRESS",
        callback=_sources,
        help="A local address, or a network of them (10.0.0.16/28), that connections come from, in turn; repeatable. "
        "Each has about 28,000 ports. Towards loopback there are sources enough by default.",
    )(command)


def _sources(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(address for value in values for address in sources_in(value)))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def dialect_option(command: Command) -> Command:
    """`--dialect`: for commands that measure more than one."""
    return click.option(
        "--dialect",
        type=click.Choice([*DIALECTS, ALL]),
        default=REFERENCE.name,
        show_default=True,
        help="What devices and app servers speak. `all`: one after the other, each with a fresh farm unless --url "
        "names one, and how they compare.",
    )(command)


def chosen(dialect: str) -> list[Dialect]:
    """What `--dialect` names, of those whose pushes go to single devices."""
    return list(DIALECTS.values()) if dialect == ALL else [DIALECTS[dialect]]


def subscribers_options(command: Command) -> Command:
    """`--mode` and `--apps`: for commands with subscribers."""
    modes = dict.fromkeys(mode for one in FAN_OUTS.values() for mode in one.modes)
    for option in reversed(
        (
            click.option(
                "--mode",
                "modes",
                multiple=True,
                type=click.Choice([*modes, ALL]),
                help="How subscribers are connected, where a dialect has several ways; repeatable, and then one after "
                "the other, as with `all`. By default "
                + ", ".join(f"{one.modes[0]} ({one.title})" for one in FAN_OUTS.values() if one.modes)
                + ".",
            ),
            click.option(
                "--apps",
                default="",
                metavar="FILE",
                help="With --url: the farm's own "
                + " or ".join(one.apps_setting for one in FAN_OUTS.values() if one.apps_setting)
                + ", of which the first application is used.",
            ),
        )
    ):
        command = option(command)
    return command


def fan_out_options(names: list[str], default: list[str]) -> Callable[[Command], Command]:
    """`--processes`, `--router`, `--dialect`, `--mode`, `--apps` and `--mixed`: for commands that publish to
    subscribers."""

    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option("--processes", type=click.IntRange(0), default=0, help="Load processes of subscribers."),
                click.option(
                    "--router",
                    default="http://127.0.0.1:8081",
                    show_default=True,
                    metavar="URL",
                    help="With --url: where its app servers post.",
                ),
                click.option(
                    "--dialect",
                    "dialects",
                    type=click.Choice(names),
                    multiple=True,
                    default=default,
                    show_default=True,
                    help="What subscribers and app servers speak; repeatable. Several, or several modes: one after the "
                    "other, each with a fresh farm unless --url names one, and how they compare with the first.",
                ),
                subscribers_options,
                click.option(
                    "--mixed",
                    is_flag=True,
                    help="Subscribers in all modes of the dialect at once, in the same channels.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


def speaking(names: Sequence[str], modes: Sequence[str], url: str, apps: str, mixed: bool = False) -> list[Speaking]:
    """What `--dialect` and `--mode` name, of those whose events go to many subscribers. `mixed`: all modes at once.

    Raises:
      BadParameter: no dialect has one of the modes, or a farm that runs needs `--apps`.
    """
    found: list[Speaking] = []
    for name in names:
        one = FAN_OUTS[name]
        if url and one.apps_setting and not apps:
            raise click.BadParameter(
                "a farm that runs has applications of its own: name their file", param_hint="--apps"
            )
        if mixed or not one.modes:
            found.append(Speaking(one, one.modes, apps if url else ""))
            continue
        wanted = one.modes if ALL in modes else tuple(mode for mode in one.modes if mode in modes) or one.modes[:1]
        found += [Speaking(one, (mode,), apps if url else "") for mode in wanted]
    unknown = [mode for mode in modes if mode != ALL and not any(mode in FAN_OUTS[name].modes for name in names)]
    if unknown:
        raise click.BadParameter(
            f"{' and '.join(names) or 'no dialect'}: there is no {unknown[0]}", param_hint="--mode"
        )
    return found


def in_turn(
    spoken: Sequence[Spoken],
    figures: tuple[Figure, ...],
    interrupt: Interrupt,
    run: Callable[[Spoken], dict[str, Any]],
    several: bool,
) -> dict[str, Any]:
    """Run in what is spoken; where `several` were asked for, in each of them, and then compare these figures."""
    if not several:
        return run(spoken[0])
    parts: list[dict[str, Any]] = []
    for one in spoken:
        if not parts or not interrupt.requested:
            parts.append(run(one))
    return {"parts": parts, "ratios": ratios(parts, figures)}


def endpoints_every(devices: int, channels: int = 1) -> int:
    """Every how many devices one reports its endpoints, so that at most 200,000 have to be kept."""
    return math.ceil(devices * channels / CHANNELS_PUSHED_TO)


def target_of(farm: dict[str, Any], devices: int) -> Target:
    """The farm that the options of `farm_options` name, for so many devices.

    Raises:
      BenchError: the machine may not open that many files.
    """
    needed = devices * (1 if farm["url"] else 2) + SPARE_FILES
    if (free := procfs.free_files()) < needed:
        raise BenchError(
            f"{devices:,} devices need {needed:,} open files, and fs.file-max leaves {max(0, free):,} to this machine: "
            f"sysctl -w fs.file-max={2 * needed}"
        )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    workers = farm["workers"] or workers_for(devices, LEAST_WORKERS, hard)
    return Target(farm["url"], farm["admin"], workers, farm["store"], tuple(farm["settings"]))


def perform(command: str, options: dict[str, Any], run: Callable[[Interrupt, Progress], dict[str, Any]]) -> Document:
    """Run a command, write its document where `options` (with those of `output_options`) say, print its tables, and
    return it. What was measured is written before anything is drawn, and an error of the drawing ends nothing."""
    options = dict(options)
    json_file, folder, name = (options.pop(key, "") for key in ("json_file", "out_folder", "out_name"))
    pictures = options.pop("pictures", True)
    name = name or command
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        check_output(json_file, folder, name)
        with ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt().on_signals())
            progress = stack.enter_context(Progress())
            result = run(interrupt, progress)
        body = document(command, options, result, interrupt.requested)
        if json_file:
            write_json(json_file, body)
        publish(body, folder, name, pictures)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    return body


def publish(body: Document, folder: str, name: str, pictures: bool = True) -> None:
    """Print a document, and write it, perhaps with pictures, if a folder is given; what can't be drawn is reported on
    stderr.

    Raises:
      BenchError: the folder can't be written to.
    """
    console = Console()
    try:
        terminal.show(console if console.is_terminal else Console(width=REPORT_COLUMNS), body, shown(body))
    except BenchError as error:
        click.echo(f"Note: no tables: {error}", err=True)
    if folder:
        for path in write(folder, name, body, pictures):
            click.echo(f"wrote {path}", err=True)
