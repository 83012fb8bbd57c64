"""`farm restore`: a backup, put back into a data folder."""

from __future__ import annotations

from pathlib import Path

import click

from farm.cli.flags import with_settings
from farm.cli.outcome import DONE, complain, one_line
from farm.config import Resolved


@click.command("restore", short_help="Check a backup and put it back.")
@click.argument("backup", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Move the store and the key that are there into a folder beside them.")
@with_settings("--data")
def command(backup: Path, replace: bool, resolved: Resolved) -> int:
    """Check BACKUP, a folder or a file that farm backup has made, and put it into the data folder. No farm may run on
    that, and what it has is not overwritten. Run it as the user of the farm.

    \b
    Examples:
      farm restore /backup/farm-monday
      farm restore --data /var/lib/farm --replace /backup/farm-monday.tar

    Exit code 1 if it is damaged, or of a newer release: then nothing has changed.
    """
    from farm.backup import restoring
    from farm.cli import report
    from router.common import logs
    from router.common.errors import MendableError
    from router.common.settings import Data, Log

    logs.setup(resolved.settings.get(Log).format, "warning", process="restore")
    try:
        with report.progress("restore") as tell:
            found, aside = restoring.restore(resolved.settings, backup, tell, replace=replace)
    except MendableError as error:
        return complain(f"farm restore: {one_line(str(error))}")
    except OSError as error:
        return complain(f"farm restore: {error.filename or backup}: {(error.strerror or str(error)).lower()}")
    data = resolved.settings.get(Data).dir
    click.echo(f"{data}: as it was at {found.when}, of router.routers={found.layout.routers}")
    if aside is not None:
        click.echo(f"{aside}: what was there before; delete it when you no longer need it")
    if not found.has_key:
        click.echo("The token keys are not in the backup: start the farm with the token.keys that it had.")
    return DONE
