"""`farm bench compare`: its options."""

import os
import shutil
import sys
from typing import Any, Final

import click

from bench.commands.common import perform
from bench.commands.numbers import Number
from bench.commands.options import connections_option, output_options
from bench.interrupt import Interrupt
from bench.peers import PEERS
from bench.peers.base import Tools
from bench.progress import Progress
from bench.runs import compare as comparing
from bench.runs import compare_replays
from bench.runs.compare_figures import clean

MOST_REPLAYED: Final = 5_000
"""That come back, if no option says how many."""


@click.command()
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(list(PEERS)),
    help="A server to compare with; repeatable. By default all.",
)
@click.option("--devices", type=click.IntRange(1), default=10_000, show_default=True, help="Devices held, by each.")
@click.option(
    "--hold",
    type=Number(0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Silence before memory is read.",
)
@click.option("--seconds", type=Number(0.1), default=5.0, show_default=True, help="How long to push.")
@click.option(
    "--subscribers",
    type=click.IntRange(0),
    default=None,
    help="Subscribers of one channel, to which events are sent, too; by default as many as devices, 0: no fan-out.",
)
@click.option(
    "--replay",
    "replayed",
    type=click.IntRange(0),
    default=None,
    help="Subscribers that go, and come back to what was stored for them meanwhile, on servers that do that; by "
    f"default as many as devices, {MOST_REPLAYED:,} at most, 0: none.",
)
@click.option(
    "--messages", type=click.IntRange(1), default=20, show_default=True, help="Stored for each of them meanwhile."
)
@connections_option
@click.option("--pushers", type=click.IntRange(1), default=1, show_default=True, help="Load processes of app servers.")
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Rounds over all servers; the tables show medians.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of the farm, and of peers that can have several. The others are one process.",
)
@click.option(
    "--timeout",
    type=Number(0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="A device that is not set up by then has failed.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting for the farm started; repeatable."
)
@click.option(
    "--python",
    default="",
    metavar="PATH",
    help="The interpreter that has the Python peers; by default the one that runs this.",
)
@click.option(
    "--node-modules",
    default="",
    metavar="DIR",
    help="The folder that has `ws`, or a node_modules with it; NODE_PATH is looked at, too.",
)
@output_options
def compare(
    *,
    peers: tuple[str, ...],
    devices: int,
    hold: float,
    seconds: float,
    subscribers: int | None,
    replayed: int | None,
    messages: int,
    connections: int,
    pushers: int,
    repeat: int,
    workers: int,
    timeout: float,
    settings: tuple[str, ...],
    python: str,
    node_modules: str,
    **output: Any,
) -> None:
    """Put the same load on a farm and on other servers.

    Starts each server on this machine, alone: a farm with SQLite, a farm with its store in memory, and the peers that
    are installed (a row with how to install it for the others). Brings up devices, holds them in silence, pushes to
    random ones flat out, and sets all figures in relation to the farm with SQLite. Then, on those that can do that,
    many subscribers of one channel, and events to all of them flat out; and on those that store events, subscribers
    that come back to what they missed.

    The peers are set up for this load as their manuals advise: no compression, nothing stored, no keepalive of their
    own. What a set-up and a push are differs, and stands in the tables.

    \b
    farm bench compare --repeat 3
    farm bench compare --peer nchan --peer trio-websocket --devices 15000
    farm bench compare --python /opt/peers/bin/python --node-modules /opt/peers/node_modules --out results
    """
    found = shutil.which(python) if python else sys.executable
    if found is None:
        raise click.BadParameter(f"no program {python!r}", param_hint="--python")
    tools = Tools(os.path.abspath(found), node_modules, workers, devices)
    replayed = min(devices, MOST_REPLAYED) if replayed is None else replayed
    named = tuple(dict.fromkeys(peers)) or tuple(PEERS)
    plan = comparing.Plan(
        named,
        devices,
        hold,
        seconds,
        connections,
        pushers,
        repeat,
        timeout,
        tools=tools,
        settings=settings,
        subscribers=devices if subscribers is None else subscribers,
        replays=compare_replays.Plan(replayed, messages, connections, timeout, settings=settings),
    )

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        return comparing.run(plan, interrupt=interrupt, progress=progress)

    options: dict[str, Any] = {"peers": list(named), "devices": devices, "hold": hold, "seconds": seconds}
    options |= {"subscribers": plan.subscribers, "replay": replayed, "messages": messages}
    options |= {"connections": connections, "pushers": pushers, "repeat": repeat, "workers": workers}
    options |= {"timeout": timeout, "set": list(settings), "python": python, "node_modules": node_modules}
    body = perform("compare", options | output, run)
    # a peer that is not installed is no failure, unless it was asked for by name
    failed = [server for server in body["servers"] if not clean(server) and (peers or not server["missing"])]
    sys.exit(bool(body["interrupted"] or failed))
