"""`farm bench`: the measuring tool, which is a package of its own."""

from __future__ import annotations

from typing import Any, Final

import click

from farm.cli.examples import examples_last
from farm.cli.extras import not_installed
from farm.cli.outcome import DONE, complain

_NEEDED: Final = ("jinja2", "matplotlib", "numpy", "psutil", "trio_websocket")


class _Bench(click.Command):
    """Takes whatever follows, for the package to parse: so that `farm` does not import it for its other commands."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """For a shell that completes (nothing else parses resiliently) that of the package, with its commands."""
        if extra.get("resilient_parsing") and not not_installed("", "", *_NEEDED):
            from bench.cli import main as bench_main

            return bench_main.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    "bench",
    cls=_Bench,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(args: tuple[str, ...]) -> int:
    """Measure a farm (farm bench --help)."""
    if missing := not_installed("farm bench", "bench", *_NEEDED):
        return complain(missing)
    from bench.cli import main as bench_main

    code = examples_last(bench_main).main(args=list(args), prog_name="farm bench", standalone_mode=False)
    return code if isinstance(code, int) else DONE
