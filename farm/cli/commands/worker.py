"""`farm worker`: one worker alone."""

from __future__ import annotations

import click

from farm.cli.flag_types import whole
from farm.cli.flags import with_settings
from farm.cli.outcome import complain
from farm.config import ConfigError, Resolved


@click.command("worker", short_help="Run one worker alone.")
@click.option("--shard", type=whole(0, 9999), required=True, metavar="K", help="Number of this worker, from 0.")
@with_settings("--routers", "--host", "--device-port", "--data", checked=True)
def command(shard: int, resolved: Resolved) -> int:
    """Run one worker alone, for a set-up that has its own supervisor.

    \b
    Example:
      farm worker --shard 0 --data /var/lib/farm
    """
    from farm.worker import main as worker_main
    from router.common.cluster_checks import problems_alone
    from router.common.listener import ListenError

    if problems := problems_alone(resolved.settings):
        raise ConfigError(*problems)
    try:
        return worker_main.run_single(resolved.settings, shard)
    except ListenError as exc:
        return complain(f"farm worker: {exc}")
