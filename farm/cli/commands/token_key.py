"""`farm token-key`: a new key for push endpoints."""

from __future__ import annotations

import click

from farm.cli.outcome import DONE


@click.command("token-key", short_help="Print a new key for push endpoints.")
def command() -> int:
    """Print a new key for push endpoints, for token.keys. The first key seals, all of them open: put a new one
    and a comma before the old ones, and endpoints that were given out go on working.

    \b
    Example:
      export FARM_TOKEN_KEYS="$(farm token-key)"
    """
    from router.common.token import new_key

    click.echo(new_key())
    return DONE
