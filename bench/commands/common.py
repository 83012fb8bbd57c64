"""What several commands of `farm bench` do: they choose what is spoken, run, and publish the result."""

import math
import resource
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from bench.errors import BenchError
from bench.figures.dialects import ALL, Figure, ratios
from bench.figures.profiles import workers_for
from bench.figures.results import Document, check_output, document, shown, write_json
from bench.interrupt import Interrupt
from bench.load.dialect import Dialect
from bench.load.protocols import DIALECTS, FAN_OUTS
from bench.machine import procfs
from bench.progress import Progress
from bench.render import terminal
from bench.render.folder import write
from bench.runs.speaking import Speaking
from bench.target import Target
from router.common.admin_address import without_token

REPORT_COLUMNS: Final = 120
LEAST_WORKERS: Final = 2
SPARE_FILES: Final = 10_000
CHANNELS_PUSHED_TO: Final = 200_000
"""At most so many channels are pushed to, of devices evenly spread over all: their endpoints have to be kept."""

Spoken = TypeVar("Spoken")


def chosen(dialect: str) -> list[Dialect]:
    """What `--dialect` names, of those whose pushes go to single devices."""
    return list(DIALECTS.values()) if dialect == ALL else [DIALECTS[dialect]]


def speaking(names: Sequence[str], modes: Sequence[str], url: str, apps: str, mixed: bool = False) -> list[Speaking]:
    """What `--dialect` and `--mode` name, of those whose events go to many subscribers. `mixed`: all modes at once.

    Raises:
      BadParameter: no dialect has one of the modes, or a farm that runs needs `--apps`.
      UsageError: some modes, and all of them at once, are asked for.
    """
    if mixed and modes:
        raise click.UsageError("--mixed has all modes, and --mode only one at a time")
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
    settings = tuple(farm["settings"])
    return Target(farm["url"], farm["admin"], workers, farm["store"], settings, farm["token_file"])


def perform(command: str, options: dict[str, Any], run: Callable[[Interrupt, Progress], dict[str, Any]]) -> Document:
    """Run a command, write its document where `options` (with those of `output_options`) say, print its tables, and
    return it. What was measured is written before anything is drawn, and an error of the drawing ends nothing."""
    options = dict(options)
    json_file, folder, name = (options.pop(key, "") for key in ("json_file", "out_folder", "out_name"))
    pictures = options.pop("pictures", True)
    if "admin" in options:
        options["admin"] = without_token(options["admin"])
        options.pop("token_file", None)  # a file of whoever ran it; the options of a result have it no more
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
