"""`farm backup`: a copy of the data folder, while the farm runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from farm.cli.flags import with_settings
from farm.cli.outcome import DONE, complain, one_line, warn
from farm.config import Resolved

_NICE = 10


@click.command("backup", short_help="Copy the store and the token key while the farm runs.")
@click.argument("target", type=click.Path(path_type=Path))
@with_settings("--data")
def command(target: Path, resolved: Resolved) -> int:
    """Make TARGET, a backup of the data folder: the store, as it is at one moment for each router, and the token key. A
    name that ends with .tar is one file, any other one a folder. The farm may run meanwhile. It is checked before it
    appears, and nothing is overwritten.

    Whoever has the token key can make push endpoints of this farm, so keep the backup as secret as the data folder:
    its mode is 0700, that of files 0600. Run it as the user of the farm.

    \b
    Examples:
      farm backup /backup/farm-monday
      farm backup --data /var/lib/farm /backup/farm-monday
      farm backup --data /var/lib/farm /backup/farm-monday.tar

    Exit code 1 if there is none: the store is elsewhere (Redis), or the disk is full.
    """
    from farm.backup import drafts, making
    from farm.cli import report
    from router import __version__
    from router.common.errors import MendableError

    os.nice(_NICE)
    began = time.monotonic()
    for line in drafts.clean(target):
        warn(line)
    try:
        with report.progress("backup") as tell:
            made = making.make(resolved.settings, target, __version__, int(time.time()), tell)
    except MendableError as error:
        return complain(f"farm backup: {one_line(str(error))}")
    except OSError as error:
        return complain(f"farm backup: {error.filename or target}: {(error.strerror or str(error)).lower()}")
    click.echo(
        f"{target}: {len(made.files)} files, {made.size / 1e6:,.1f} MB, schema {made.schema}, checked, "
        f"in {time.monotonic() - began:.1f} s"
    )
    if made.has_key:
        click.echo("It holds the token key: whoever reads it can make push endpoints of this farm (mode 0600).")
    else:
        click.echo("The token keys are in the settings (token.keys), and not in it: keep these too.")
    return DONE
