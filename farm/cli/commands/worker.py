"""`farm worker`: one worker alone; or one of a running farm is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from farm.cli.asking import Commands, with_farm
from farm.cli.examples import examples_last
from farm.cli.flag_types import seconds, whole
from farm.cli.flags import with_settings
from farm.cli.outcome import DONE, complain
from farm.config import ConfigError, Resolved

if TYPE_CHECKING:
    from farm.admin_client import AdminClient

_SHARD = whole(0, 9999)
_POLL_S = 0.2


class _Worker(Commands):
    """With a flag first, or nothing, it is the command that runs a worker."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """That of the command which the arguments are for."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            return examples_last(_alone).make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command("worker")
@click.option("--shard", type=_SHARD, required=True, metavar="K", help="Number of this worker, from 0.")
@with_settings("--routers", "--host", "--device-port", "--data", checked=True)
def _alone(shard: int, resolved: Resolved) -> int:
    """Run one worker alone, for a set-up that has its own supervisor.

    \b
    Examples:
      farm worker --shard 0
      farm worker --shard 1 --data /var/lib/farm
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


@click.group("worker", cls=_Worker, short_help="Drain or restart one worker; or run one alone.")
def command() -> None:
    """Replace one worker of a running farm by a new process; or, with --shard, run one worker alone.

    \b
    Examples:
      farm worker drain 0
      farm worker restart 1
      farm worker --shard 0

    `farm worker --shard 0 --help` shows the flags of a worker that is run alone, for a set-up that has its own
    supervisor.
    """


_timeout = click.option("--timeout", type=seconds(), metavar="SECONDS", help="How long to wait. Default: no limit.")


@command.command("drain", short_help="Let its devices go as in a drain, and replace it.")
@click.argument("shard", type=_SHARD)
@_timeout
@with_farm
def drain(client: AdminClient, as_json: bool, shard: int, timeout: float | None) -> int:
    """Replace a worker of this host: a new process takes its place, and the old one lets its devices go, drain.rate of
    them a second or over drain.seconds. They come back to all workers. Waits until the old process has ended.

    \b
    Examples:
      farm worker drain 0
      farm worker drain 1 --timeout 300

    Exit code 1 if the new process does not come to serve (then nothing changes), or it takes too long.
    """
    return _replace(client, as_json, shard, "drain", timeout)


@command.command("restart", short_help="Replace it at once.")
@click.argument("shard", type=_SHARD)
@_timeout
@with_farm
def restart(client: AdminClient, as_json: bool, shard: int, timeout: float | None) -> int:
    """Replace a worker of this host at once, also one that hangs: a new process takes its place, and the old one lets
    its devices go within a second. Waits until it has ended.

    \b
    Example:
      farm worker restart 0

    Exit code 1 if the new process does not come to serve: then nothing changes.
    """
    return _replace(client, as_json, shard, "restart", timeout)


def _replace(client: AdminClient, as_json: bool, shard: int, action: str, timeout: float | None) -> int:
    import time

    from farm.cli import report

    path = click.get_current_context().command_path
    found = client.act("POST", "workers", str(shard), action)
    number, began = found["number"], time.monotonic()
    with report.waiting(f"worker {shard}") as progress:
        while found["outcome"] == "running":
            if timeout is not None and time.monotonic() - began >= timeout:
                return complain(f"{path}: worker {shard} is not replaced after {timeout:g} s; that goes on")
            time.sleep(_POLL_S)
            found = client.get("workers")["replacement"]
            if found is None or found["number"] != number:
                return complain(f"{path}: the farm was started anew, or has replaced another worker since")
            left = "" if found["left"] is None else f", {found['left']:,} connections left"
            progress(f"worker {shard}: {found['step']}{left}")
    if as_json:
        report.print_json(found)
    if found["outcome"] != "done":
        return complain(f"{path}: {found['outcome']}: {found['why']}")
    if not as_json:
        click.echo(f"worker {shard}: replaced after {found['seconds']:.1f} s")
    return DONE
