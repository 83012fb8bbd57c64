"""`farm token-key`: a new key for push endpoints."""

from __future__ import annotations

import click

from farm.cli.outcome import DONE


@click.command("token-key", short_help="Print a new key for push endpoints.")
def command() -> int:
    """Print a new key for push endpoints, for token.keys. The first key seals, all of them open.

    \b
    Example, a new key before the old one so that endpoints given out earlier go on working:
      export FARM_TOKEN_KEYS="$(farm token-key),$OLD_KEYS"
    """
    from router.common.token import new_key

    click.echo(new_key())
    return DONE
