"""`farm bench push`: its options."""

import sys
from typing import Any, Final

import click

from bench.commands.common import chosen, endpoints_every, in_turn, perform, target_of
from bench.commands.numbers import Number
from bench.commands.options import (
    MOST_PAYLOAD_BYTES,
    channels_option,
    connections_option,
    dialect_option,
    farm_options_of_stores,
    grace_option,
    load_options,
    source_option,
)
from bench.figures.dialects import ALL, PUSH_FIGURES, parts_of
from bench.interrupt import Interrupt
from bench.load.dialect import Dialect
from bench.load.protocols import DIALECTS
from bench.progress import Progress
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.load import Load
from bench.store_servers.choices import CHOICES

BATCHING: Final = [one.title for one in DIALECTS.values() if one.batch_wire]


@click.command()
@load_options(15_000)
@dialect_option
@connections_option
@click.option("--pushers", type=click.IntRange(1), default=1, show_default=True, help="Load processes of app servers.")
@click.option("--seconds", type=Number(0.1), default=10.0, show_default=True, help="Length of a run.")
@click.option(
    "--rate",
    type=Number(0),
    default=0.0,
    help="Pushes a second, due at even steps; latency counts from when a push was due. By default flat out.",
)
@click.option("--half", is_flag=True, help="A second run, at half of the rate that the first reached.")
@grace_option(5.0)
@click.option(
    "--payload",
    type=click.IntRange(0, MOST_PAYLOAD_BYTES),
    default=None,
    metavar="BYTES",
    help="Data that each push carries; devices check it. By default "
    + ", ".join(f"{one.payload} with {one.title} (a farm takes {one.most_payload})" for one in DIALECTS.values()),
)
@click.option(
    "--online",
    type=Number(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SHARE",
    help="Share of the devices that is connected. The others register and leave: what is pushed to them is stored.",
)
@click.option(
    "--batch",
    type=click.IntRange(0),
    default=0,
    metavar="PUSHES",
    help="Pushes in each request, by POST /v1/push; a farm takes 10000 (endpoint.max_batch). "
    f"{', '.join(BATCHING)} only. By default each push is a request of its own.",
)
@channels_option
@source_option
@click.option(
    "--endpoint",
    default="",
    metavar="URL",
    help="Push here instead of where the endpoints point: http://host:port",
)
@farm_options_of_stores
def push(
    *,
    devices: int,
    dialect: str,
    processes: int,
    timeout: float,
    connections: int,
    pushers: int,
    seconds: float,
    rate: float,
    half: bool,
    grace: float,
    payload: int | None,
    online: float,
    batch: int,
    channels: int,
    sources: tuple[str, ...],
    endpoint: str,
    **farm: Any,
) -> None:
    """Push to random devices and count what arrives.

    Devices acknowledge every notification. Reports notifications a second, what was answered, percentiles
    from the push to the frame at the device and to the answer, what was lost or came twice, and the CPU that
    each part used.

    With several --store the farm is measured with one after the other, and compared with the first. The servers run on
    the same machine, and share its cores and its disk: their CPU is a row of its own, "store". What a device takes of
    their memory is shown, too.

    With --online below 1 the rest of the devices come back at the end (a sample of them if they are many), and
    have to get the newest version of every channel of theirs that was pushed to, or every message where the dialect
    keeps all. Where app servers sign, one header is signed for a run and sent with every push, and messages are random
    bytes. Where the answer is the same for delivered and stored, what arrived is what the devices report.

    \b
    farm bench push --devices 15000 --half
    farm bench push --store redis-replica --connections 256 --seconds 30
    farm bench push --store sqlite --store redis --store valkey-replica
    farm bench push --rate 5000 --json pushed.json
    farm bench push --batch 100 --connections 16
    farm bench push --dialect all --seconds 20
    farm bench push --rate 2000 --pushers 2 --channels 3 --payload 200 --online 0.8
    """
    for one in chosen(dialect):
        if payload is not None and payload < one.least:
            text = f"a push of {one.title} has {one.least} bytes at least, by which devices identify it"
            raise click.BadParameter(text, param_hint="--payload")
        if batch and not one.batch_wire:
            text = f"only {', '.join(BATCHING)} takes several pushes in a request"
            raise click.BadParameter(text, param_hint="--batch")
    load = Load(
        devices,
        processes=processes,
        timeout=timeout,
        endpoints_every=endpoints_every(devices, channels),
        channels=channels,
        sources=sources,
    )
    plan = PushPlan(connections, pushers, seconds, rate, half, grace, endpoint, online=online, batch=batch)

    stores = [*CHOICES] if ALL in farm["store"] else list(dict.fromkeys(farm["store"]))
    several = dialect == ALL or len(stores) > 1

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        def speak(turn: tuple[Dialect, str]) -> dict[str, Any]:
            spoken, store = turn
            mine, how = pushing.speaking(spoken, load, plan, payload)
            target = target_of(farm | {"store": store}, devices)
            done = pushing.run(target, mine, how, interrupt=interrupt, progress=progress)
            return done | ({"variant": store} if len(stores) > 1 else {})

        turns = [(one, store) for one in chosen(dialect) for store in stores]
        return in_turn(turns, PUSH_FIGURES, interrupt, speak, several)

    options: dict[str, Any] = {"devices": devices, "dialect": dialect, "processes": processes}
    options |= {"connections": connections}
    options |= {"pushers": pushers, "seconds": seconds, "rate": rate, "half": half, "grace": grace}
    options |= {"batch": batch}
    farm = farm | {"store": " ".join(stores)}
    options |= {"channels": channels, "payload": payload, "online": online, "sources": len(sources)}
    body = perform("push", options | farm, run)
    sys.exit(body["interrupted"] or not all(map(_as_it_should_be, parts_of(body))))


def _as_it_should_be(part: dict[str, Any]) -> bool:
    """Whether all devices came up, and what was accepted arrived."""
    clean = all(done["clean"] and done["delivered"] for done in part["runs"])
    wanted, ready = part["setup"]["wanted"], part["setup"]["ready"]
    if away := part.get("away"):
        clean = clean and away["clean"]
        wanted, ready = wanted + away["setup"]["wanted"], ready + away["setup"]["ready"]
    return bool(clean and ready >= wanted)
