"""`farm bench replay`: its options."""

import sys
from dataclasses import replace
from typing import Any

import click

from bench.commands.common import in_turn, perform, speaking, target_of
from bench.commands.numbers import Number
from bench.commands.options import connections_option, fan_out_options, farm_options, source_option
from bench.figures.dialects import REPLAY_FIGURES, parts_of
from bench.interrupt import Interrupt
from bench.load.protocols import FAN_OUTS
from bench.progress import Progress
from bench.runs import fanout as fanning
from bench.runs import replay as replaying
from bench.runs.load import Load
from bench.runs.speaking import Speaking

REPLAYING = [name for name, one in FAN_OUTS.items() if one.replays]


@click.command()
@click.option("--subscribers", type=click.IntRange(1), default=5_000, show_default=True, help="That go and come back.")
@click.option(
    "--messages",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Stored for each channel while its subscribers are away.",
)
@click.option(
    "--rate",
    type=Number(0),
    default=0.0,
    help="Events a second while the subscribers come back, which must come behind those that were stored; by default "
    "none.",
)
@click.option(
    "--seconds", type=Number(0.1), default=2.0, show_default=True, help="With --rate: how long events are sent."
)
@click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help="How often they go and come back.")
@connections_option
@click.option(
    "--timeout",
    type=Number(0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="A subscriber that is not set up by then has failed, or tries again if it was there before.",
)
@source_option
@fan_out_options(REPLAYING, REPLAYING, grace=10.0)
@farm_options
def replay(
    *,
    subscribers: int,
    messages: int,
    channels: int,
    payload: int,
    rate: float,
    seconds: float,
    repeat: int,
    connections: int,
    grace: float,
    processes: int,
    timeout: float,
    sources: tuple[str, ...],
    router: str,
    dialects: tuple[str, ...],
    modes: tuple[str, ...],
    mixed: bool,
    apps: str,
    **farm: Any,
) -> None:
    """Let subscribers come back at once, each to the messages that were stored while it was away.

    Devices of a dialect that replays subscribe, and get a message; all are cut off; app servers store messages; all
    come back from where they were. Reports the time until all have everything, how long they took to come back, CPU,
    and what was lost, came twice or in another order. Then every channel gets a message more.

    \b
    farm bench replay
    farm bench replay --dialect gopush2 --mode all --rate 20
    farm bench replay --subscribers 5000 --channels 5000 --repeat 3 --json replay.json
    """
    if not dialects:
        raise click.UsageError("there is no dialect that replays")
    if channels > subscribers:
        raise click.BadParameter("a channel without a subscriber gets nothing", param_hint="--channels")
    spoken = speaking(dialects, modes, farm["url"], apps, mixed)
    load = Load(subscribers, processes=processes, timeout=timeout, sources=sources, payload=payload)
    events = fanning.Plan(channels, connections=connections, payload=payload)
    if farm["url"]:
        events = replace(events, router=router)
    plan = replaying.Plan(messages, channels, rate, seconds, repeat, grace, events)

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        def one(what: Speaking) -> dict[str, Any]:
            return replaying.run(target_of(farm, subscribers), load, plan, what, interrupt=interrupt, progress=progress)

        return in_turn(spoken, REPLAY_FIGURES, interrupt, one, len(spoken) > 1)

    options: dict[str, Any] = {"subscribers": subscribers, "messages": messages, "channels": channels}
    options |= {"payload": payload, "rate": rate, "seconds": seconds, "repeat": repeat, "connections": connections}
    options |= {"dialect": " ".join(dialects), "mode": "mixed" if mixed else " ".join(modes)}
    options |= {"grace": grace, "processes": processes, "sources": len(sources)}
    body = perform("replay", options | farm, run)
    sys.exit(body["interrupted"] or not all(map(_as_it_should_be, parts_of(body))))


def _as_it_should_be(body: dict[str, Any]) -> bool:
    """Whether all subscribers came up, came back, and got everything once."""
    up = body["setup"]["ready"] == body["setup"]["wanted"]
    return up and all(round_["clean"] and round_["held"] == round_["subscribers"] for round_ in body["rounds"])
