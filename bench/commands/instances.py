"""`farm bench instances`: its options."""

import sys
from typing import Any, Final

import click

from bench.commands.common import perform
from bench.commands.numbers import Number
from bench.commands.options import connections_option, output_options
from bench.figures.profiles import GIB, PROFILES, PUBLISHED, Profile, parse_memory
from bench.interrupt import Interrupt
from bench.load.protocols import REFERENCE
from bench.progress import Progress
from bench.runs import instances as trying
from bench.runs.stages import Plan

OWN: Final = "custom"
LEAST_BYTES: Final = 128 << 20
PING_SETTING: Final = f"{REFERENCE.ping_setting}="
LEAST_PING: Final = REFERENCE.ping_seconds + 1.0
"""A ping may come a little early."""


def _memory(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if not value:
        return 0
    try:
        memory = parse_memory(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if memory < LEAST_BYTES:
        raise click.BadParameter(f"{value} is too little for a farm: at least {LEAST_BYTES >> 20} MiB")
    return memory


def _prices(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    prices = {}
    for value in values:
        name, _, dollars = value.partition("=")
        try:
            prices[name] = float(dollars)
        except ValueError:
            raise click.BadParameter(f"{value}: expected NAME=DOLLARS_A_MONTH") from None
        if not 0 <= prices[name] < 1e9:
            raise click.BadParameter(f"{value}: expected dollars a month, not below 0")
        if name not in PROFILES and name != OWN:
            raise click.BadParameter(f"{name}: no profile of that name (--memory's is called {OWN})")
    return prices


@click.command()
@click.argument("names", metavar="[PROFILE]...", nargs=-1, type=click.Choice([*PROFILES]))
@click.option(
    "--memory",
    default="",
    metavar="SIZE",
    callback=_memory,
    help=f"A profile of your own, called {OWN}: 4GiB, 300MiB.",
)
@click.option("--cpus", type=Number(0.05, 1024), default=1.0, show_default=True, help="Cores of that profile.")
@click.option("--devices", type=click.IntRange(0), default=0, help="Held first where there is no figure to reproduce.")
@click.option("--max-devices", type=click.IntRange(0), default=0, help="Never more than that; by default no bound.")
@click.option("--only-reproduce", "--no-ramp", is_flag=True, help="Hold the published figure, and leave it at that.")
@click.option("--only-ramp", is_flag=True, help="Go for the ceiling at once.")
@click.option(
    "--hold",
    type=Number(0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the published figure is held.",
)
@click.option(
    "--ping",
    type=Number(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Each device pings so often then, and every ping must be answered; 0: never.",
)
@click.option(
    "--ceiling-hold",
    type=Number(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the ceiling is held.",
)
@click.option(
    "--ramp-ping",
    type=Number(0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="The same for a ramp that begins on a farm of its own, with more workers.",
)
@click.option(
    "--ecu-per-core",
    type=Number(0.1, 1000),
    default=None,
    help="ECU that a core of this machine has; by default its measured clock x 3.0 / 1.1 GHz (see the report).",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="NAME=DOLLARS",
    callback=_prices,
    help="What an instance costs a month; repeatable. Adds dollars a month for a million devices.",
)
@click.option("--sample", type=click.IntRange(1), default=20_000, show_default=True, help="Devices that are pushed to.")
@click.option("--push-seconds", type=Number(0.1), default=10.0, show_default=True, help="Length of a push run.")
@click.option("--push-rate", type=Number(0), default=0.0, help="Pushes a second; by default flat out, then half.")
@connections_option
@click.option(
    "--timeout",
    type=Number(0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="A device that is not set up by then, or a ping not answered, has failed.",
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="Of the farm; by default as many as the devices need."
)
@click.option("--store", type=click.Choice(["sqlite", "memory"]), default="sqlite", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting for the farm; repeatable.")
@click.option("--no-cgroup", is_flag=True, help="Account the farm's memory instead of limiting it.")
@output_options
def instances(
    *,
    names: tuple[str, ...],
    memory: int,
    cpus: float,
    devices: int,
    max_devices: int,
    only_reproduce: bool,
    only_ramp: bool,
    hold: float,
    ping: float,
    ceiling_hold: float,
    ramp_ping: float,
    ecu_per_core: float | None,
    prices: dict[str, float],
    sample: int,
    push_seconds: float,
    push_rate: float,
    connections: int,
    timeout: float,
    workers: int,
    store: str,
    settings: tuple[str, ...],
    no_cgroup: bool,
    **output: Any,
) -> None:
    """Hold as many devices as was published for an instance, in its memory and CPU, and then as many as go in.

    The farm alone runs in a control group with the instance's memory and its share of a core. Profiles are
    the instances of 2013 for which PushGo's figures are known (small 24,000, medium 120,000, large 200,000)
    and t4g.nano, t4g.small, c7g.medium, c7g.large, r7g.large; by default the three of 2013. In each the
    figure is brought up and held with pings, a random sample is pushed to, and then devices are added
    until the first real limit: memory, descriptors, CPU, or the load itself.

    Where no control group can be had, memory is accounted instead and every report says so.

    \b
    farm bench instances
    farm bench instances small medium --price small=12.50 --out results
    farm bench instances large --only-reproduce --hold 300
    farm bench instances --memory 4GiB --cpus 2 --devices 100000
    farm bench instances t4g.nano --max-devices 50000
    """
    if only_reproduce and only_ramp:
        raise click.UsageError("--only-reproduce and --only-ramp exclude each other")
    quick = min((interval for interval in (ping, ramp_ping) if interval), default=LEAST_PING)
    if quick < LEAST_PING and not any(setting.startswith(PING_SETTING) for setting in settings):
        raise click.UsageError(f"a farm closes devices that ping so often: needs --set {PING_SETTING}0")
    profiles = [PROFILES[name] for name in dict.fromkeys(names or (() if memory else PUBLISHED))]
    if memory:
        profiles.append(Profile(OWN, memory, cpus, about=f"{memory / GIB:.3g} GiB, {cpus:g} cores"))
    if only_reproduce and any(not profile.pushgo and not devices for profile in profiles):
        raise click.UsageError("a profile without a published figure needs --devices to hold")
    plan = Plan(
        hold=hold,
        ping=ping,
        reproduce=not only_ramp,
        ramp=not only_reproduce,
        ceiling_hold=ceiling_hold,
        ramp_ping=ramp_ping,
        devices=devices,
        most=max_devices,
        sample=sample,
        push_seconds=push_seconds,
        push_connections=connections,
        push_rate=push_rate,
        workers=workers,
        store=store,
        settings=settings,
        timeout=timeout,
        ecu=ecu_per_core or 0.0,
        groups=not no_cgroup,
        prices=prices,
    )

    def run(interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
        return trying.run(plan, profiles, interrupt=interrupt, progress=progress)

    options = {name: getattr(plan, name) for name in Plan.__slots__}
    options |= {"profiles": [profile.name for profile in profiles], "settings": list(settings)}
    body = perform("instances", options | output, run)
    good = all(row["clean"] and row["reproduced"] is not False for row in body["profiles"])
    sys.exit(0 if good and not body["interrupted"] else 1)
