"""`farm router`: one router alone."""

from __future__ import annotations

import click

from farm.cli.flag_types import whole
from farm.cli.flags import with_settings
from farm.cli.outcome import BAD_INPUT, complain
from farm.config import ConfigError, Resolved
from router.common.settings import MAX_ROUTERS


@click.command("router", short_help="Run one router alone.")
@click.option(
    "--number",
    type=whole(0, MAX_ROUTERS - 1),
    default=0,
    metavar="N",
    help="Number of this router, from 0, below --routers.",
)
@with_settings("--routers", "--host", "--router-port", "--admin-port", "--data", checked=True)
def command(number: int, resolved: Resolved) -> int:
    """Run one router alone, for a set-up that has its own supervisor. All of them are given the same --routers.

    \b
    Examples:
      farm router
      farm router --number 1 --routers 2 --data /var/lib/farm
    """
    from router import process
    from router.common.cluster_checks import problems_alone
    from router.common.listener import ListenError
    from router.common.settings import RouterOptions

    if problems := problems_alone(resolved.settings):
        raise ConfigError(*problems)
    routers = resolved.settings.get(RouterOptions).routers
    if number >= routers:
        return complain(
            f"farm router: --number {number}: router.routers is {routers}, and they are counted from 0",
            code=BAD_INPUT,
        )
    try:
        return process.run_single(resolved.settings, number)
    except ListenError as exc:
        return complain(f"farm router: {exc}")
