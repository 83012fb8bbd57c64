"""Options that several commands of `farm bench` have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from bench.commands.numbers import Number
from bench.figures.dialects import ALL
from bench.load.protocols import DIALECTS, FAN_OUTS, REFERENCE
from bench.load.sockets import sources_in
from bench.runs.fanout import LEAST_PAYLOAD
from bench.store_servers.choices import CHOICES, DEFAULT, listed

MOST_CHANNELS: Final = 1000
MOST_PAYLOAD_BYTES: Final = 1 << 20

Command = TypeVar("Command", bound=Callable[..., Any])


def farm_options(command: Command) -> Command:
    """Which farm: `--url` and `--admin`, or `--workers`, `--store` and `--set`; and `output_options`."""
    return _farm_options(
        click.option(
            "--store",
            type=click.Choice([*CHOICES]),
            default=DEFAULT,
            show_default=True,
            help=f"Of the farm started; its servers are started, too. What is accepted is {listed()}.",
        )
    )(command)


def farm_options_of_stores(command: Command) -> Command:
    """The same for commands that compare stores: gives a tuple of them."""
    return _farm_options(
        click.option(
            "--store",
            type=click.Choice([*CHOICES, ALL]),
            multiple=True,
            default=[DEFAULT],
            show_default=True,
            help="Of the farm started; its servers are started, too. Repeatable, and then one after the other, each "
            f"with a fresh farm, and how they compare. What is accepted is {listed()}.",
        )
    )(command)


def _farm_options(store: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option("--url", default="", metavar="WS_URL", help="A farm that runs: ws://127.0.0.1:8080/"),
                click.option(
                    "--admin",
                    default="http://127.0.0.1:8082",
                    show_default=True,
                    metavar="URL",
                    help="Its admin port, for /status. Empty: no memory and CPU of the farm.",
                ),
                click.option(
                    "--token-file",
                    type=click.Path(path_type=Path),
                    metavar="FILE",
                    help="File with a token of that admin port.",
                ),
                click.option(
                    "--workers",
                    type=click.IntRange(0),
                    default=0,
                    help="Of the farm started; by default two, or as many as the devices need for their descriptors.",
                ),
                store,
                click.option(
                    "--set",
                    "settings",
                    multiple=True,
                    metavar="KEY=VALUE",
                    help="A setting for the farm started; repeatable.",
                ),
            )
        ):
            command = option(command)
        return output_options(command)

    return decorate


def output_options(command: Command) -> Command:
    """`--json`, `--out`, `--name` and `--no-pictures`: where `perform` writes the results."""
    for option in reversed(
        (
            click.option("--json", "json_file", default="", metavar="FILE", help="Write everything there, too."),
            click.option(
                "--out",
                "out_folder",
                default="",
                metavar="DIR",
                help="Write NAME.json, NAME.md and pictures (NAME-1.png, NAME-1.svg, ...) there, too.",
            ),
            click.option("--name", "out_name", default="", help="NAME of those files; by default the command's."),
            click.option(
                "--pictures/--no-pictures",
                "pictures",
                default=True,
                help="Whether --out writes pictures, too; `farm bench report` draws them whenever they are wanted.",
            ),
        )
    ):
        command = option(command)
    return command


def load_options(devices: int) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--devices",
                    type=click.IntRange(1),
                    default=devices,
                    show_default=True,
                    help="Devices held.",
                ),
                click.option(
                    "--processes",
                    type=click.IntRange(0),
                    default=0,
                    help="Load processes of devices; by default one for every 18,000.",
                ),
                click.option(
                    "--timeout",
                    type=Number(0.1),
                    default=30.0,
                    show_default=True,
                    metavar="SECONDS",
                    help="A device that is not set up by then has failed.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


def channels_option(command: Command) -> Command:
    """`--channels`: for commands whose devices may register several."""
    return click.option(
        "--channels",
        type=click.IntRange(1, MOST_CHANNELS),
        default=1,
        show_default=True,
        help="Channels that each device registers.",
    )(command)


def connections_option(command: Command) -> Command:
    """`--connections`: for commands that push."""
    return click.option(
        "--connections",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Keep-alive connections of app servers.",
    )(command)


def grace_option(seconds: float) -> Callable[[Command], Command]:
    """`--grace`: for commands that check what became of each push."""
    return click.option(
        "--grace",
        type=Number(0),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="An accepted push that a connected device has not got by then is lost.",
    )


def source_option(command: Command) -> Command:
    """`--source`: for commands whose connections may need more ports than one address has. Gives a tuple of
    addresses."""
    return click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="ADDRESS",
        callback=_sources,
        help="A local address, or a network of them (10.0.0.16/28), that connections come from, in turn; repeatable. "
        "Each has about 28,000 ports. Towards loopback there are sources enough by default.",
    )(command)


def _sources(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(address for value in values for address in sources_in(value)))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def dialect_option(command: Command) -> Command:
    """`--dialect`: for commands that measure more than one."""
    return click.option(
        "--dialect",
        type=click.Choice([*DIALECTS, ALL]),
        default=REFERENCE.name,
        show_default=True,
        help="What devices and app servers speak. `all`: one after the other, each with a fresh farm unless --url "
        "names one, and how they compare.",
    )(command)


def subscribers_options(command: Command) -> Command:
    """`--mode` and `--apps`: for commands with subscribers."""
    modes = dict.fromkeys(mode for one in FAN_OUTS.values() for mode in one.modes)
    for option in reversed(
        (
            click.option(
                "--mode",
                "modes",
                multiple=True,
                type=click.Choice([*modes, ALL]),
                help="How subscribers are connected, where a dialect has several ways; repeatable, and then one after "
                "the other, as with `all`. By default "
                + ", ".join(f"{one.modes[0]} ({one.title})" for one in FAN_OUTS.values() if one.modes)
                + ".",
            ),
            click.option(
                "--apps",
                default="",
                metavar="FILE",
                help="With --url: the farm's own "
                + " or ".join(one.apps_setting for one in FAN_OUTS.values() if one.apps_setting)
                + ", of which the first application is used.",
            ),
        )
    ):
        command = option(command)
    return command


def fan_out_options(names: list[str], default: list[str], grace: float) -> Callable[[Command], Command]:
    """`--channels`, `--payload`, `--grace`, `--processes`, `--router`, `--dialect`, `--mode`, `--apps` and `--mixed`:
    for commands that publish to subscribers."""

    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--channels",
                    type=click.IntRange(1),
                    default=1,
                    show_default=True,
                    help="Channels that the subscribers share evenly.",
                ),
                click.option(
                    "--payload",
                    type=click.IntRange(LEAST_PAYLOAD, MOST_PAYLOAD_BYTES),
                    default=120,
                    show_default=True,
                    metavar="BYTES",
                    help="Data of an event. A farm takes "
                    + " or ".join(one.most_payload for one in FAN_OUTS.values())
                    + ".",
                ),
                click.option(
                    "--grace",
                    type=Number(0),
                    default=grace,
                    show_default=True,
                    metavar="SECONDS",
                    help="When nothing has arrived for so long after the end, what is missing is lost.",
                ),
                click.option("--processes", type=click.IntRange(0), default=0, help="Load processes of subscribers."),
                click.option(
                    "--router",
                    default="http://127.0.0.1:8081",
                    show_default=True,
                    metavar="URL",
                    help="With --url: where its app servers post.",
                ),
                click.option(
                    "--dialect",
                    "dialects",
                    type=click.Choice(names),
                    multiple=True,
                    default=default,
                    show_default=True,
                    help="What subscribers and app servers speak; repeatable. Several, or several modes: one after the "
                    "other, each with a fresh farm unless --url names one, and how they compare with the first.",
                ),
                subscribers_options,
                click.option(
                    "--mixed",
                    is_flag=True,
                    help="Subscribers in all modes of the dialect at once, in the same channels.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate
