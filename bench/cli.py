"""`farm bench`: the group of its subcommands."""

import click

from bench.commands.cluster import cluster
from bench.commands.compare import compare
from bench.commands.connect import connect
from bench.commands.fanout import fanout
from bench.commands.instances import instances
from bench.commands.plan import plan
from bench.commands.push import push
from bench.commands.replay import replay
from bench.commands.report import report
from bench.commands.soak import soak
from bench.commands.storm import storm


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure a farm: how many devices it takes up, what one costs, how fast pushes reach them.

    Without --url each command starts a farm of its own on free ports of loopback, with its data in a
    temporary folder, and stops it at the end. The load runs on the same machine and shares its cores; every
    report shows which processes used them, and whether the load itself was the limit.

    Exit code 0: done, nothing failed. 1: a device failed, an accepted push was lost, or the run could not
    go on. 2: bad arguments. Ctrl-C ends a run with what was measured so far, and exit code 1.

    \b
    farm bench connect --devices 15000
    farm bench push --devices 15000 --half
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (instances, connect, push, fanout, replay, storm, soak, compare, cluster, plan, report):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="farm bench")
