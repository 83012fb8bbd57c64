"""`farm device`: one device of a running farm."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from farm.cli.asking import Commands, with_farm
from farm.cli.flag_types import whole
from farm.cli.outcome import DONE

if TYPE_CHECKING:
    from farm.admin_client import AdminClient

_LONGEST_TTL = 2**31 - 1
_PAGE = 1000
"""Devices of one answer: `router.core.managing.MAX_PAGE`, whose module is too much for `--help`."""


@click.group("device", cls=Commands, short_help="Find a device, show it, push to it, disconnect or forget it.")
def command() -> None:
    """One device of a running farm, on whatever host and worker it is. DEVICE is its uaid, one of its push endpoints,
    the IP address that it is connected from, or its address in the farm, as `farm device find` shows it.

    \b
    Examples:
      farm device find 127.0.0.1
      farm device show 3a1f0c58a3b14d94b0aa1e3a1b1b6f7c
      farm device push 3a1f0c58a3b14d94b0aa1e3a1b1b6f7c "Hello"
    """


def _with_device(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the argument DEVICE and the flag --dialect."""
    of = click.option("--dialect", metavar="NAME", default="", help="Its dialect, where several have one of this name.")
    return click.argument("device")(of(command))


def _asked_for(device: str, limit: int) -> dict[str, Any]:
    """How a list is asked for that has it."""
    if "://" in device:
        return {"endpoint": device, "limit": limit}
    try:
        ipaddress.ip_address(device)
    except ValueError:
        return {"uaid": device, "limit": limit}
    return {"address": device, "limit": limit}


def _found(client: AdminClient, device: str, dialect: str) -> tuple[str, str, str]:
    """Address or uaid, dialect, and the channel of a push endpoint. Raises: ControlError unless it is one."""
    from farm.control import ControlError

    asked = _asked_for(device, _PAGE if dialect else 2)  # from one address others may come first
    if "uaid" in asked:
        return device, dialect, ""
    page = client.get("devices", **asked)
    rows = [row for row in page["devices"] if dialect in ("", row["dialect"])]
    if len(rows) > 1:
        raise ControlError(f"several devices are connected from {device}: farm device find {device} shows them")
    if page["more"]:
        raise ControlError(f"not all devices from {device} could be looked at, so it may be another: give its uaid")
    if rows:
        return rows[0]["device"], rows[0]["dialect"], rows[0]["channel"] or ""
    raise ControlError(f"no device is found by {device}")


@command.command("find", short_help="Devices by uaid, endpoint or IP address.")
@click.argument("device")
@click.option("--limit", type=whole(1, _PAGE), default=100, metavar="N", help="How many at most. Default: 100.")
@with_farm
def find(client: AdminClient, as_json: bool, device: str, limit: int) -> int:
    """Find devices: those that are connected from an IP address, that of a push endpoint, or those with a uaid.

    \b
    Examples:
      farm device find 127.0.0.1
      farm device find http://localhost:8081/update/mzTZ
    """
    from farm.cli import report
    from farm.cli.tables import print_rows

    found = client.get("devices", **_asked_for(device, limit))
    if as_json:
        report.print_json(found)
        return DONE
    columns = {
        "device": "device",
        "dialect": "dialect",
        "shard": "worker",
        "host": "host",
        "address": "address",
        "since": "connected",
    }
    rows = [{**row, "since": _seconds(row["since"])} for row in found["devices"]]
    print_rows(columns, rows, "no such device", unbroken="device")
    if found["more"]:
        click.echo("there are others, or a worker has not answered", err=True)
    return DONE


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f} s"


@command.command("show", short_help="What is known of a device.")
@_with_device
@click.option("--limit", type=whole(1, 100_000), default=20, metavar="N", help="Messages shown at most. Default: 20.")
@with_farm
def show(client: AdminClient, as_json: bool, device: str, dialect: str, limit: int) -> int:
    """Show a device: whether it is registered and connected, its channels, and the messages that wait for it (their
    contents only with admin.show_contents).

    \b
    Examples:
      farm device show 3a1f0c58a3b14d94b0aa1e3a1b1b6f7c
      farm device show 127.0.0.1 --json
    """
    from farm.cli import report
    from farm.cli.tables import cell, print_pairs, print_rows

    name, dialect, _ = _found(client, device, dialect)
    pages = list(client.pages("devices", name, dialect=dialect or None, limit=limit))
    found = pages[-1]
    found["inbox"]["items"][:0] = [item for page in pages[:-1] for item in page["inbox"]["items"]]
    if as_json:
        report.print_json(found)
        return DONE
    connection, inbox = found["connection"], found["inbox"]
    where = None if connection is None else f"worker {connection['shard']} {connection['host'] or ''}".strip()
    print_pairs(
        (
            ("device", "", found["device"]),
            ("uaid", "", found["uaid"]),
            ("dialect", "", found["dialect"]),
            ("registered", "", found["registered"]),
            ("channels", "", "kept by the device" if found["channels"] is None else len(found["channels"])),
            ("connected", "", where or "no"),
            *(
                ()
                if connection is None
                else (
                    ("from", "", connection["address"]),
                    ("since", "_seconds", connection["since"]),
                    ("silent for", "_seconds", connection["silent"]),
                    ("buffered", "_bytes", connection["buffered"]),
                )
            ),
            ("messages", "", inbox["messages"]),
            ("of", "_bytes", inbox["bytes"]),
        )
    )
    for channel in found["channels"] or ():
        click.echo(f"  {cell('', channel)}")
    if inbox["items"]:
        columns = {"channel": "channel", "size_bytes": "size", "age": "age", "ttl_seconds": "ttl", "content": "content"}
        rows = [{**item, "size_bytes": item["size"], "ttl_seconds": item["ttl"]} for item in inbox["items"]]
        print_rows(columns, rows, "")
    if (missing := inbox["messages"] - len(inbox["items"])) > 0:
        click.echo(f"and {missing} other messages: --limit", err=True)
    return DONE


@command.command("push", short_help="Send it a test message.")
@_with_device
@click.argument("data", default="")
@click.option("--channel", metavar="ID", default="", help="The channel, where the farm does not know the device's.")
@click.option(
    "--ttl", type=whole(0, _LONGEST_TTL), default=60, metavar="SECONDS", help="How long it is kept. Default: 60."
)
@with_farm
def push(client: AdminClient, as_json: bool, device: str, dialect: str, data: str, channel: str, ttl: int) -> int:
    """Send a device a test message, as an app server would. A push endpoint names the channel, too.

    \b
    Examples:
      farm device push http://localhost:8081/update/mzTZ
      farm device push 3a1f0c58a3b14d94b0aa1e3a1b1b6f7c "Hello" --ttl 3600

    Exit code 1 if the farm refuses it, with what an app server would be answered.
    """
    from farm.cli import report

    name, dialect, of_endpoint = _found(client, device, dialect)
    body = {"channel": channel or of_endpoint, "data": data, "ttl": ttl}
    found = client.act("POST", "devices", name, "push", body=body, dialect=dialect or None)
    if as_json:
        report.print_json(found)
    else:
        click.echo(f"{found['outcome']} (an app server would be answered {found['status']})")
    return DONE


def _act(name: str, short: str, text: str, act: Callable[[AdminClient, str, str | None], tuple[Any, str]]) -> None:
    """A command that does something with a device, and says what in a line."""

    @_with_device
    @with_farm
    def acting(client: AdminClient, as_json: bool, device: str, dialect: str) -> int:
        from farm.cli import report

        found, said = act(client, *_found(client, device, dialect)[:2])
        if as_json:
            report.print_json(found)
        else:
            click.echo(said)
        return DONE

    acting.__doc__ = f"""{text}

    \b
    Example:
      farm device {name} 3a1f0c58a3b14d94b0aa1e3a1b1b6f7c
    """
    command.command(name, short_help=short)(acting)


def _empty(client: AdminClient, device: str, dialect: str | None) -> tuple[Any, str]:
    found = client.act("DELETE", "devices", device, "inbox", dialect=dialect or None)
    return found, f"removed: {found['removed']} messages"


def _disconnect(client: AdminClient, device: str, dialect: str | None) -> tuple[Any, str]:
    found = client.act("POST", "devices", device, "disconnect", dialect=dialect or None)
    return found, "disconnected" if found["disconnected"] else "it was not connected"


def _forget(client: AdminClient, device: str, dialect: str | None) -> tuple[Any, str]:
    found = client.act("DELETE", "devices", device, dialect=dialect or None)
    return found, "forgotten" if found["forgotten"] else "nothing was known of it"


_act("empty", "Remove the messages that wait for it.", "Remove the messages that wait for a device.", _empty)
_act(
    "disconnect",
    "Close its connection.",
    "Close the connection of a device. It may come back at once, as devices do.",
    _disconnect,
)
_act(
    "forget",
    "Remove its registration, its messages and its connection.",
    "Forget a device: its registration and what waits for it are removed, and its connection is closed.",
    _forget,
)
