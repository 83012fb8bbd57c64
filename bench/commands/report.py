"""`farm bench report`: its options."""

import click

from bench.errors import BenchError
from bench.progress import Progress
from bench.runs import report as reporting


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option("--output", default="", metavar="FILE", help="The page; by default DIR/index.html.")
def report(*, folder: str, output: str) -> None:
    """One HTML page of all results in a folder, newest first.

    It shows every .json file that a command of the bench wrote with --out or --json: tables, pictures, and what they
    were measured on. The page needs no other file and no network. Files that are no results are named on the page
    and here; exit code 1 only if there is nothing to show.

    \b
    farm bench connect --out results --name held-15000
    farm bench push --out results --half
    farm bench report results
    farm bench report results --output /var/www/bench.html
    """
    try:
        with Progress() as progress:
            names, bad, place = reporting.run(folder, output, progress)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    for name, reason in bad:
        click.echo(f"left out: {name}: {reason}", err=True)
    click.echo(f"{place}: {len(names)} result{'s' if len(names) != 1 else ''}, {place.stat().st_size / 1024:,.0f} KiB")
