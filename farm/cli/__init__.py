"""The `farm` command: finds its commands, runs one, and turns how it ended into an exit code.

Exit codes: 0 done, 1 failed, 2 bad arguments or configuration. A mistake of the user is one line on stderr, each with
the option's name; a stack trace means that the fault is ours.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from farm.cli import commands, early, start_log
from farm.cli.examples import examples_last
from farm.cli.outcome import BAD_INPUT, DONE, SURROUNDINGS, complain, one_line, speak
from farm.config import ConfigError
from router import __version__


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the command line. Always ends by SystemExit with one of the exit codes."""
    early.open_standard_descriptors()
    if sys.argv[1:2] == ["start"]:
        early.ignore_hangup()
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process' own) and return its exit code."""
    words = sys.argv[1:] if args is None else list(args)
    speak(start_log.wanted(words, os.environ))
    try:
        code = cli.main(args=args, prog_name="farm", standalone_mode=False)
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx is not None else "farm"
        return complain(f"{command}: {one_line(exc.format_message())} (see {command} --help)", code=BAD_INPUT)
    except click.ClickException as exc:
        return complain(f"farm: {one_line(exc.format_message())}")
    except ConfigError as exc:
        return complain(*exc.problems, code=BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return complain("farm: interrupted")
    except OSError as exc:
        if exc.errno not in SURROUNDINGS:
            raise
        place = f"{exc.filename}: " if exc.filename else ""
        return complain(f"farm: {place}{exc.strerror or exc}")
    return code if isinstance(code, int) else DONE


class _Commands(click.Group):
    """The modules of `farm.cli.commands`; each is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        return list(commands.found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, if there is one."""
        module = commands.found().get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return examples_last(command)


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"farm {__version__} (Python {sys.version.split()[0]})")
        context.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Start one here, with its data in ./farm-data:
  farm start --workers 2
See what this machine can hold, and what to change:
  farm doctor
Look at a farm that runs, let its devices go and stop it:
  farm status
  farm drain""",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print it and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """A push server that holds very many idle WebSocket devices on one small machine.

    Settings come from farm.toml, from variables FARM_SECTION_KEY and from flags; the later wins.

    Exit codes: 0 done, 1 failed, 2 bad arguments or configuration.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
