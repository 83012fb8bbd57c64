"""The flags by which commands take the settings: --config, --set, and short forms of common options."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from farm.cli.outcome import warn
from farm.config import DEFAULT_FILE, ConfigError, Resolved, resolve
from farm.option_value import expected, options_of
from router.common.errors import MendableError
from router.common.options import Settings

if TYPE_CHECKING:
    from router.dialects import ForeignConfig, ForeignSettings

# Flag, the option that it is short for, what stands for its value in the help.
_SHORT_FLAGS: Final = (
    ("--workers", "farm.workers", "N|auto"),
    ("--routers", "router.routers", "K"),
    ("--host", "listen.host", "ADDRESS"),
    ("--device-port", "listen.device_port", "PORT"),
    ("--router-port", "listen.router_port", "PORT"),
    ("--admin-port", "listen.admin_port", "PORT"),
    ("--data", "data.dir", "DIR"),
)


class _ShortFlag(click.Option):
    """A flag whose help, range and default are those of its option, so that the two cannot drift apart.

    The help is made when it is needed: the tree holds the dialects' sections, and importing those takes
    longer than all of `farm --help`.
    """

    def __init__(self, *args: Any, key: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._key = key

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """What click prints of this flag: its names and its help."""
        from farm.sections import all_sections

        option = next(o for s in all_sections() for o in options_of(s) if o.key == self._key)
        meaning = f"{option.spec.help[0].upper()}{option.spec.help[1:]}"
        takes = "" if option.kind is str and not option.spec.expects else f" ({expected(option)})"
        self.help = f"{meaning}{takes}. Default: {option.default}."
        return super().get_help_record(ctx)


class SettingsCommand(click.Command):
    """A command of `with_settings` that takes other servers' configuration files too, by the flags of the dialects.

    They are looked up when the command is, as those of `_ShortFlag` are.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The flags of the dialects stand after --config."""
        params = list(super().get_params(ctx))
        after = 1 + next(at for at, param in enumerate(params) if param.name == "config")
        params[after:after] = [
            click.Option([config.flag], type=click.Path(path_type=Path), metavar="FILE", help=config.help)
            for config in _foreign_configs()
        ]
        return params


def with_settings(*short: str, checked: bool = False) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Gives a command --config, --set and these short flags; it gets the tree as its argument `resolved`.

    checked: whether what the settings refer to must be good, for the dialects that are on.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def wrapped(config: Path | None, assignments: tuple[str, ...], **rest: Any) -> int:
            given = {flag: rest.pop(_parameter(flag)) for flag in short}
            paths = [(kind, rest.pop(_parameter(kind.flag), None)) for kind in _foreign_configs()]
            files = [(kind, path) for kind, path in paths if path is not None]

            def read() -> Resolved:
                resolved = _resolve(config, assignments, given, files)
                if checked:
                    _check(resolved.settings)
                return resolved

            resolved = read()
            for warning in resolved.warnings:
                warn(warning)
            return command(resolved=dataclasses.replace(resolved, again=read), **rest)

        decorated: Callable[..., int] = click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Any option of the settings tree; may be repeated. `farm default-config` lists them all.",
        )(wrapped)
        for flag, key, metavar in reversed(_SHORT_FLAGS):
            if flag in short:
                decorated = click.option(flag, cls=_ShortFlag, key=key, metavar=metavar)(decorated)
        return click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"Settings file. Default: ./{DEFAULT_FILE}, if there is one.",
        )(decorated)

    return decorate


def with_admin_port(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command that asks a running farm --url and --token-file, for `AdminClient.of`."""
    where = click.option("--url", metavar="URL", help="Where it answers. Default: http://<admin host>:<admin port>.")
    with_what = click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="File with a token of its admin port. Default: that of the settings.",
    )
    return where(with_what(command))


def _foreign_configs() -> list[ForeignConfig]:
    """The flags of all dialects that take another server's configuration file."""
    from farm.dialects import specs

    return [config for spec in specs() for config in spec.foreign_configs]


def _check(settings: Settings) -> None:
    """That what the settings refer to can be used, by the dialects that are on.

    Raises: ConfigError with every problem.
    """
    from farm import admin_tokens
    from farm.dialects import sides, specs
    from farm.worker.auth_dialects import differing_urls
    from router.common import cluster_checks, tls, trace_settings
    from router.common.tls_settings import TlsOptions
    from router.dialects import is_on, spoken, store_refusals

    problems = [*admin_tokens.problems(settings), *cluster_checks.problems(settings)]
    problems += trace_settings.problems(settings)
    problems += [*store_refusals(settings, specs()), *tls.problems(settings.get(TlsOptions))]
    problems += differing_urls(settings, [side for side in sides() if is_on(settings, side.spec)])
    for spec in spoken(settings, specs()):
        try:
            spec.check(settings)
        except MendableError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)


def _read(config: ForeignConfig, file: Path) -> ForeignSettings:
    """Raises: ConfigError with every problem."""
    try:
        return config.read(file)
    except MendableError as error:
        raise ConfigError(*error.problems) from None


def _parameter(flag: str) -> str:
    """The name by which click hands on a flag."""
    return flag.removeprefix("--").replace("-", "_")


def _resolve(
    config: Path | None,
    assignments: Sequence[str],
    short: Mapping[str, str | None],
    files: Iterable[tuple[ForeignConfig, Path]],
) -> Resolved:
    """The settings tree from the file, those of other servers, the environment and the flags.

    Raises: ConfigError with every problem.
    """
    from farm.sections import all_sections

    if config is None and DEFAULT_FILE.exists():
        config = DEFAULT_FILE
    pairs: list[tuple[str, str, object]] = []
    for text in assignments:
        key, equals, value = text.partition("=")
        pairs.append(("--set", key.strip(), value) if equals else ("--set", text, None))
    # After --set, so that the short form wins whatever their order on the line was.
    for flag, key, _ in _SHORT_FLAGS:
        if (given := short.get(flag)) is not None:
            pairs.append((flag, key, given))
    read = [_read(kind, file) for kind, file in files]
    return resolve(
        all_sections(),
        file=config,
        environ=os.environ,
        assignments=pairs,
        foreign=[setting for found in read for setting in found.settings],
        warnings=[warning for found in read for warning in found.warnings],
    )
