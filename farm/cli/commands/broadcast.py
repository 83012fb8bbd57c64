"""`farm broadcast`: what all devices of a running farm may follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from farm.cli.asking import Commands, with_farm
from farm.cli.outcome import DONE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from farm.admin_client import AdminClient

_dialect = click.option("--dialect", metavar="NAME", help="Of which dialect, where more than one has broadcasts.")


@click.group("broadcast", cls=Commands, short_help="List, set and remove broadcasts.")
def command() -> None:
    """Broadcasts of a running farm: names with a version, which devices may follow.

    \b
    Examples:
      farm broadcast list
      farm broadcast set example/news v2
      farm broadcast remove example/news
    """


def _print(found: Mapping[str, Any], as_json: bool) -> int:
    from farm.cli import report
    from farm.cli.tables import print_rows

    if as_json:
        report.print_json(found)
    else:
        print_rows(
            {"dialect": "dialect", "key": "broadcast", "version": "version"}, found["broadcasts"], "no broadcasts"
        )
    return DONE


@command.command("list", short_help="All broadcasts.")
@_dialect
@with_farm
def list_all(client: AdminClient, as_json: bool, dialect: str | None) -> int:
    """List all broadcasts with their versions.

    \b
    Example:
      farm broadcast list
    """
    return _print(client.get("broadcasts", dialect=dialect), as_json)


@command.command("set", short_help="Set the version of one.")
@click.argument("key")
@click.argument("version")
@_dialect
@with_farm
def set_one(client: AdminClient, as_json: bool, key: str, version: str, dialect: str | None) -> int:
    """Set the version of a broadcast, and list all. Devices that follow it are told.

    \b
    Example:
      farm broadcast set example/news v2
    """
    found = client.act("PUT", "broadcasts", key, body={"version": version}, dialect=dialect)
    return _print(found, as_json)


@command.command("remove", short_help="Remove one.")
@click.argument("key")
@_dialect
@with_farm
def remove(client: AdminClient, as_json: bool, key: str, dialect: str | None) -> int:
    """Remove a broadcast, and list those that are left.

    \b
    Example:
      farm broadcast remove example/news
    """
    return _print(client.act("DELETE", "broadcasts", key, dialect=dialect), as_json)
