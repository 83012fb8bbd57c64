"""`farm channel`: the channels of a running farm."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from farm.cli.asking import Commands, with_farm
from farm.cli.flag_types import whole
from farm.cli.outcome import DONE

if TYPE_CHECKING:
    from farm.admin_client import AdminClient

_BEHIND = "\U0010ffff"
"""Behind a name: greater than all that begin with it."""


_dialect = click.option(
    "--dialect", metavar="NAME", default="", help="Its dialect. Default: it is looked up by the channel's name."
)
_application = click.option(
    "--application", metavar="ID", default="", help="Its application, where there is more than one."
)


def _place(client: AdminClient, channel: str, dialect: str, application: str) -> tuple[str, str]:
    """The dialect and the application of a channel: as given, or looked up. Raises: ControlError."""
    return (dialect, application) if dialect else _found(client, channel, application)


def _found(client: AdminClient, channel: str, application: str) -> tuple[str, str]:
    """The dialect and the application of a channel. Raises: ControlError if none or several have it."""
    from farm.control import ControlError

    found: list[dict[str, str]] = []
    after: str | None = None
    # In a list the channels of an application stand together, by name: the first that begins so is this one, or there
    # is none. So a row of each is enough, however many other channels begin so.
    while True:
        page = client.get("channels", prefix=channel, application=application or None, after=after, limit=1)
        for row in page["channels"]:
            if row["channel"] == channel:
                found.append(row)
            after = f"{row['dialect']}/{row['application']}/{max(row['channel'], channel + _BEHIND)}"
        if page["next"] is None:
            break
    if len(found) == 1:
        return found[0]["dialect"], found[0]["application"]
    if found:
        several = ", ".join(f"{row['dialect']} {row['application']}".strip() for row in found)
        raise ControlError(f"several have a channel {channel!r} ({several}): say which by --dialect and --application")
    raise ControlError(f"no channel {channel!r} is listed; one without subscribers needs --dialect")


@click.group("channel", cls=Commands, short_help="List channels, show one, publish a test event.")
def command() -> None:
    """Channels of a running farm, of all its hosts, whatever dialects they belong to.

    \b
    Examples:
      farm channel list
      farm channel show my-channel
      farm channel publish my-channel "Hello"
    """


@command.command("list", short_help="Channels and their subscribers.")
@click.option("--dialect", metavar="NAME", help="Of this dialect only.")
@click.option("--application", metavar="ID", help="Of this application only.")
@click.option("--prefix", metavar="TEXT", help="Whose names begin so.")
@click.option("--after", metavar="PLACE", help="Behind this place: as a list that was cut says at its end.")
@click.option("--limit", type=whole(1, 100_000), default=100, metavar="N", help="How many at most. Default: 100.")
@with_farm
def list_channels(
    client: AdminClient,
    as_json: bool,
    dialect: str | None,
    application: str | None,
    prefix: str | None,
    after: str | None,
    limit: int,
) -> int:
    """List channels with the number of their subscribers, by dialect, application and name.

    \b
    Examples:
      farm channel list
      farm channel list --prefix my- --limit 20
      farm channel list --json | jq -r '.channels[].channel'
    """
    from farm.cli import report
    from farm.cli.tables import cell, print_rows

    rows: list[dict[str, object]] = []
    asked = {"dialect": dialect, "application": application, "prefix": prefix}
    for page in client.pages("channels", limit=limit, after=after, **asked):
        rows += page["channels"]
        after = page["next"]
    if as_json:
        report.print_json({"channels": rows, "next": after})
        return DONE
    titles = ("dialect", "application", "channel", "subscribers", "members")
    print_rows({title: title for title in titles}, rows, "no channels")
    if after is not None:
        click.echo(f"there are more: --after {shlex.quote(cell('', after))}", err=True)
    return DONE


@command.command("show", short_help="One channel.")
@click.argument("channel")
@_dialect
@_application
@with_farm
def show(client: AdminClient, as_json: bool, dialect: str, channel: str, application: str) -> int:
    """Show a channel: its subscribers, the members of a presence channel, and what the store holds of it.

    \b
    Examples:
      farm channel show my-channel
      farm channel show my-channel --json

    Exit code 1 if it has no subscribers and nothing of it is stored.
    """
    from farm.cli import report
    from farm.cli.tables import print_pairs, print_rows

    dialect, application = _place(client, channel, dialect, application)
    found = client.get("channels", dialect, channel, application=application or None)
    if as_json:
        report.print_json(found)
        return DONE
    print_pairs(
        (
            ("channel", "", found["channel"]),
            ("dialect", "", found["dialect"]),
            ("application", "", found["application"]),
            ("subscribers", "", "not counted" if found["subscribers"] is None else found["subscribers"]),
            ("members", "", found["member_count"]),
            ("stored events", "", found["stored"]),
            ("newest event", "position", found["position"]),
            ("published", "", found["published"]),
            ("ends in", "_seconds", found["expires_in"]),
        )
    )
    if found["members"]:
        print_rows({"user": "user", "info": "info"}, found["members"], "")
        if (missing := found["member_count"] - len(found["members"])) > 0:
            click.echo(f"and {missing} others", err=True)
    return DONE


@command.command("publish", short_help="Publish a test event.")
@click.argument("channel")
@click.argument("data", default="This is a test.")
@click.option("--event", metavar="NAME", default="", help="Its name or type, where the dialect has that.")
@_dialect
@_application
@with_farm
def publish(
    client: AdminClient, as_json: bool, dialect: str, channel: str, data: str, event: str, application: str
) -> int:
    """Publish an event to a channel, as an app server would. All its subscribers get it.

    \b
    Examples:
      farm channel publish my-channel
      farm channel publish my-channel '{"text": "Hello"}' --event message

    Exit code 1 if the farm refuses it, with what an app server would be answered.
    """
    from farm.cli import report

    dialect, application = _place(client, channel, dialect, application)
    body = {"data": data, "event": event}
    found = client.act("POST", "channels", dialect, channel, "events", body=body, application=application or None)
    if as_json:
        report.print_json(found)
    else:
        click.echo(f"published: an app server would be answered {found['status']}")
    return DONE
