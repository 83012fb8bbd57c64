"""Commands that ask a running farm, or have it do something, over its admin port."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farm.cli.flags import with_admin_port, with_settings
from farm.cli.outcome import BAD_INPUT, complain
from farm.config import Resolved

if TYPE_CHECKING:
    from farm.admin_client import AdminClient

_BAD_REQUEST = "bad_request"


class Commands(click.Group):
    """Commands about one thing. Alone it shows its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises: click.exceptions.Exit."""
        if not args and not ctx.resilient_parsing:  # which is completion, looking for the commands
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


def with_farm(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the flags by which a farm is found, and --json. It gets `client` and `as_json`, and may raise
    ControlError: one line, and exit code 1, or 2 where the farm finds fault with an argument."""

    @functools.wraps(command)
    def wrapped(resolved: Resolved, url: str | None, token_file: Path | None, **rest: Any) -> int:
        from farm.admin_client import AdminClient, BadArgument, RefusedByFarm
        from farm.control import ControlError

        path = click.get_current_context().command_path
        try:
            client: AdminClient = AdminClient.of(resolved.settings, url, token_file)
            return command(client=client, **rest)
        except RefusedByFarm as exc:
            return complain(f"{path}: {exc}", code=BAD_INPUT if exc.code == _BAD_REQUEST else 1)
        except BadArgument as exc:
            return complain(f"{path}: {exc}", code=BAD_INPUT)
        except ControlError as exc:
            return complain(f"{path}: {exc}")

    as_json = click.option("--json", "as_json", is_flag=True, help="Print what the farm answered, for scripts.")
    return as_json(with_admin_port(with_settings("--admin-port")(wrapped)))
