"""`farm default-config`: a farm.toml with every option."""

from __future__ import annotations

import click

from farm.cli.outcome import DONE


@click.command("default-config", short_help="Print a farm.toml with every option.")
def command() -> int:
    """Print a farm.toml with every option, its meaning, default, range and unit, all of it commented out.

    \b
    Example:
      farm default-config > farm.toml
    """
    from farm.config_text import render_default
    from farm.sections import all_sections

    click.echo(render_default(all_sections()), nl=False)
    return DONE
