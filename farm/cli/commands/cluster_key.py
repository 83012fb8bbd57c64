"""`farm cluster-key`: a new key for the links between hosts."""

from __future__ import annotations

import click

from farm.cli.outcome import DONE


@click.command("cluster-key", short_help="Print a new key for the links between hosts.")
def command() -> int:
    """Print a new key for the links between the hosts of a cluster, for cluster.key on each of them.

    For another key without a pause restart all hosts three times, one host after the other: with "$OLD,$NEW", then
    "$NEW,$OLD", then "$NEW".

    \b
    Example:
      export FARM_CLUSTER_KEY="$(farm cluster-key)"
    """
    from router.common.curve import new_key

    click.echo(new_key())
    return DONE
