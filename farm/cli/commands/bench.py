"""`farm bench`: the measuring tool, which is a package of its own."""

from __future__ import annotations

import click

from farm.cli.examples import examples_last
from farm.cli.extras import not_installed
from farm.cli.outcome import DONE, complain


@click.command(
    "bench",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(args: tuple[str, ...]) -> int:
    """Measure a farm (farm bench --help)."""
    if missing := not_installed("farm bench", "bench", "jinja2", "matplotlib", "numpy", "psutil", "trio_websocket"):
        return complain(missing)
    from bench.cli import main as bench_main

    code = examples_last(bench_main).main(args=list(args), prog_name="farm bench", standalone_mode=False)
    return code if isinstance(code, int) else DONE
