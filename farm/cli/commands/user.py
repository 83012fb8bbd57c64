"""`farm user`: the users of a running farm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from farm.cli.asking import Commands, with_farm
from farm.cli.outcome import DONE

if TYPE_CHECKING:
    from farm.admin_client import AdminClient


@click.group("user", cls=Commands, short_help="Close the connections of a user.")
def command() -> None:
    """Users of a running farm: those that have signed in, where a dialect knows such a thing.

    \b
    Example:
      farm user terminate user-7
    """


@command.command("terminate", short_help="Close the connections of a user.")
@click.argument("user")
@click.option("--dialect", metavar="NAME", default="-", help="Of which dialect, where more than one knows users.")
@click.option("--application", metavar="ID", default="", help="The application, where there is more than one.")
@with_farm
def terminate(client: AdminClient, as_json: bool, dialect: str, user: str, application: str) -> int:
    """Close all connections that are signed in as a user, as an app server would.

    \b
    Examples:
      farm user terminate user-7
      farm user terminate user-7 --application 3

    It is no error if there are none.
    """
    from farm.cli import report

    found = client.act("POST", "users", dialect, user, "terminate", application=application or None)
    if as_json:
        report.print_json(found)
    else:
        click.echo(f"closed: all connections of {user}")
    return DONE
