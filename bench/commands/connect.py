"""`farm bench connect`: its options."""

import sys
from pathlib import Path
from typing import Any, Final

import click

from bench.commands.common import endpoints_every, in_turn, perform, speaking, target_of
from bench.commands.numbers import Number
from bench.commands.options import channels_option, farm_options, load_options, source_option, subscribers_options
from bench.figures.dialects import ALL, CONNECT_FIGURES, parts_of
from bench.interrupt import Interrupt
from bench.load.dialect import Dialect
from bench.load.protocols import DIALECTS, FAN_OUTS, REFERENCE
from bench.progress import Progress
from bench.runs import connect as connecting
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.fronts import FARM, HAPROXY, Front, certificate
from bench.runs.load import Load
from bench.runs.speaking import Speaking

PUSH_SECONDS: Final = 600.0
"""Pushes that are not sent by then are not, and the run has failed."""


@click.command()
@load_options(10_000)
@click.option(
    "--dialect",
    "dialects",
    type=click.Choice([*DIALECTS, *FAN_OUTS, ALL]),
    multiple=True,
    default=(REFERENCE.name,),
    show_default=True,
    help="What devices speak; repeatable. Several, or `all` whose pushes go to single devices: one after the other, "
    "each with a fresh farm unless --url names one, and how they compare with the first. Devices of the others "
    "subscribe to one channel, the same for all.",
)
@subscribers_options
@click.option(
    "--bare",
    is_flag=True,
    help="Upgrade only: no hello, no channel. A farm closes such devices when their hello is overdue.",
)
@click.option(
    "--rate",
    type=Number(0),
    default=0.0,
    help="Set-ups begun a second; by default as fast as they go.",
)
@click.option(
    "--hold",
    type=Number(0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Silence before memory is read.",
)
@click.option(
    "--ping",
    type=Number(0),
    default=0.0,
    metavar="SECONDS",
    help="Each device pings so often, and every ping must be answered. By default never. A farm closes devices that "
    "ping more often than every "
    + ", ".join(f"{one.ping_seconds:g} with {one.title} ({one.ping_setting})" for one in DIALECTS.values()),
)
@click.option(
    "--push",
    "pushes",
    type=click.IntRange(0),
    default=0,
    metavar="COUNT",
    help="Then push so many notifications to random devices, all of which must arrive.",
)
@click.option(
    "--push-rate",
    type=Number(0),
    default=0.0,
    help="Those a second, due at even steps; by default flat out.",
)
@click.option(
    "--tls",
    is_flag=True,
    help="Once without TLS, once with TLS in the farm, and once with TLS in HAProxy in front of it, each with a fresh "
    "farm, and how they compare.",
)
@channels_option
@source_option
@click.option(
    "--baseline/--no-baseline",
    default=True,
    show_default=True,
    help="Measure a plain trio-websocket server in the same run.",
)
@farm_options
def connect(
    *,
    devices: int,
    dialects: tuple[str, ...],
    modes: tuple[str, ...],
    apps: str,
    processes: int,
    timeout: float,
    bare: bool,
    rate: float,
    hold: float,
    ping: float,
    pushes: int,
    push_rate: float,
    tls: bool,
    channels: int,
    sources: tuple[str, ...],
    baseline: bool,
    **farm: Any,
) -> None:
    """Hold silent devices, each with its registered channels.

    Reports set-ups a second (overall, and in the middle half of them), the time of one set-up, user and
    kernel memory a connection, what the machine holds in all (both ends, kernel, and every process), the
    spread over the workers, and the same for a trio-websocket server as the baseline. With --push also how
    fast notifications reach devices while all of them are held.

    \b
    farm bench connect --devices 15000
    farm bench connect --devices 100000 --rate 5000 --hold 120 --json held.json
    farm bench connect --devices 1000000 --no-baseline --push 100000
    farm bench connect --url ws://10.0.0.9:8080/ --admin http://10.0.0.9:8082 --source 10.0.1.0/28
    farm bench connect --dialect all --devices 15000
    farm bench connect --tls --devices 8000
    farm bench connect --url ws://127.0.0.1:8080/ --admin http://127.0.0.1:8082
    """
    names = [one for name in dialects for one in (DIALECTS if name == ALL else (name,))]
    channelled = [name for name in names if name not in DIALECTS]
    if tls and (farm["url"] or len(names) > 1):
        raise click.UsageError("--tls starts farms of its own, with one --dialect")
    if bare and pushes:
        raise click.UsageError("--push needs devices with channels, and --bare ones have none")
    if bare and names != [REFERENCE.name]:
        raise click.UsageError("--bare devices send nothing, so they have no --dialect")
    if channelled and (pushes or channels != 1):
        raise click.UsageError(f"--push and --channels: not with {channelled[0]}, whose events go to channels (fanout)")
    subscribing = speaking(channelled, modes, farm["url"], apps)
    spoken: list[Dialect | Speaking] = []
    for name in names:
        mine = [one for one in subscribing if one.fan_out.name == name]
        spoken += mine or [DIALECTS[name]]
    load = Load(
        devices,
        bare,
        rate,
        processes,
        timeout=timeout,
        endpoints_every=endpoints_every(devices, channels) if pushes else 0,
        channels=channels,
        ping=ping,
        sources=sources,
    )
    plan = PushPlan(seconds=PUSH_SECONDS, rate=push_rate, count=pushes)

    def with_tls(interrupt: Interrupt, progress: Progress, pem: Path) -> dict[str, Any]:
        def one(front: Front | None) -> dict[str, Any]:
            what = spoken[0]
            mine, how = (load, plan) if isinstance(what, Speaking) else pushing.speaking(what, load, plan)
            return connecting.run(
                target_of(farm, devices),
                mine,
                hold=hold,
                baseline=False,
                interrupt=interrupt,
                progress=progress,
                plan=how if pushes else None,
                subscribing=what if isinstance(what, Speaking) else None,
                front=front,
            )

        fronts = (None, Front(FARM, pem), Front(HAPROXY, pem))
        return in_turn(fronts, CONNECT_FIGURES, interrupt, one, True)

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        if tls:
            with certificate() as pem:
                Front(HAPROXY, pem).check()
                return with_tls(interrupt, progress, pem)

        def one(what: Dialect | Speaking) -> dict[str, Any]:
            mine, how = (load, plan) if isinstance(what, Speaking) else pushing.speaking(what, load, plan)
            return connecting.run(
                target_of(farm, devices),
                mine,
                hold=hold,
                baseline=baseline and what is spoken[0],  # of several, once is enough
                interrupt=interrupt,
                progress=progress,
                plan=how if pushes else None,
                subscribing=what if isinstance(what, Speaking) else None,
            )

        return in_turn(spoken, CONNECT_FIGURES, interrupt, one, len(spoken) > 1 or ALL in dialects)

    options: dict[str, Any] = {"devices": devices, "dialect": " ".join(dialects), "mode": " ".join(modes)}
    options |= {"tls": tls, "bare": bare, "rate": rate, "hold": hold, "processes": processes}
    options |= {"ping": ping, "push": pushes, "push_rate": push_rate, "channels": channels, "sources": len(sources)}
    body = perform("connect", options | farm, run)
    good = all(_as_it_should_be(part["connect"], devices, pushes) for part in parts_of(body))
    sys.exit(1 if body["interrupted"] or not good else 0)


def _as_it_should_be(done: dict[str, Any], devices: int, pushes: int) -> bool:
    """Whether all devices came up and stayed, with every ping answered and every push there."""
    pushed = done["push"]
    arrived = not pushes or (pushed and pushed["clean"] and pushed["delivered"] == pushes and not pushed["drops"])
    failed = done["setup"]["ready"] < devices or done["drops"] or done["pings"]["overdue"]
    return bool(arrived and not failed)
