"""Reads the settings tree: defaults, then `farm.toml`, then the environment, then flags; the later wins.

Every source is read against the same declarations (`router.common.options`), and all of it is read before any problem
is reported, so that one run names every problem: where it stands, what was expected, what was found, and for a
name that does not exist the nearest one that does.

In the environment an option is `FARM_SECTION_KEY`; a variable that is empty counts as unset. Not every variable that
begins with `FARM_` is ours: for a service called `farm` or `farm-device` Kubernetes makes `FARM_DEVICE_SERVICE_HOST`,
`FARM_DEVICE_PORT=tcp://10.0.0.1:8080` and their like, which are passed over even where they have the name of an
option. Of the others an unknown one is an error if it

- begins with the name of a section (`FARM_LISTEN_PROT`), or
- is the name of an option without its section (`FARM_WORKERS`), or
- is nearly the name of one (`FARM_LISEN_PORT`),

and is left alone otherwise. `render_default` and `as_toml` write the tree; they stand in `farm.config_text`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from farm.option_value import PREFIX, WrongValue, checked, expected, from_text, options_of, show
from farm.toml_lines import key_lines
from router.common.errors import MendableError
from router.common.options import Section, Settings

DEFAULT_FILE: Final = Path("farm.toml")
NEAR: Final = 0.8  # difflib's ratio from which an unknown FARM_ variable counts as a misspelt option
SUGGEST: Final = 0.6  # and from which a name is worth suggesting
MAX_FILE_BYTES: Final = 262_144
MAX_PROBLEMS: Final = 50  # that are named; of the others only the number is

# A service's variables (Kubernetes, "Discovering services"; Docker's links are the same): most by their names alone,
# NAME_PORT by its value too, because it could be a misspelt option.
_SERVICE_NAME: Final = re.compile(
    r"FARM(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT_NAME: Final = re.compile(r"FARM(_[A-Z0-9_]+)?_PORT")
_MAX_KEY_SHOWN: Final = 80
_SERVICE_PORT_VALUE: Final = re.compile(r"(tcp|udp|sctp)://.*", re.IGNORECASE | re.DOTALL)


class ConfigError(MendableError):
    """The settings cannot be used. `problems` has one line each, fit to be shown to the user."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The effective settings and, by key, the source of every value that is not a default."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    """What was read and has no meaning here, a line each."""
    again: Callable[[], Resolved] | None = None
    """Reads the same sources once more, as `resolve` does."""


def load(
    sections: Iterable[type[Section]],
    *,
    file: Path | None,
    environ: Mapping[str, str],
    assignments: Sequence[tuple[str, str, object]] = (),
) -> Settings:
    """The effective settings. Arguments and errors as of `resolve`."""
    return resolve(sections, file=file, environ=environ, assignments=assignments).settings


def resolve(
    sections: Iterable[type[Section]],
    *,
    file: Path | None,
    environ: Mapping[str, str],
    assignments: Sequence[tuple[str, str, object]] = (),
    foreign: Iterable[tuple[str, str, object]] = (),
    warnings: Iterable[str] = (),
) -> Resolved:
    """Read all sources.

    Args:
        sections: the whole tree.
        file: a farm.toml, or None for none.
        foreign: what a configuration file of another server sets, as (where it does so, key, value); it counts more
            than farm.toml and less than the environment.
        warnings: what it sets that has no meaning here; handed on.
        environ: the environment; only names that begin with FARM_ are looked at.
        assignments: flags as (flag, key, value), e.g. ("--set", "listen.device_port", "8080"); a value None
            says that the flag's text had no "=".

    Raises: ConfigError with every problem of every source.
    """
    reader = _Reader(sections)
    if file is not None:
        reader.read_file(file)
    reader.read_assignments(foreign)
    reader.read_environ(environ)
    reader.read_assignments(assignments)
    return replace(reader.finish(), warnings=tuple(warnings))


class _Reader:
    def __init__(self, sections: Iterable[type[Section]]) -> None:
        self._sections = {section.SECTION: section for section in sections}
        self._options = {o.key: o for section in self._sections.values() for o in options_of(section)}
        self._variables = {o.variable: o for o in self._options.values()}
        if len(self._variables) != len(self._options):
            raise AssertionError("two options have the same environment variable")
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._problems: list[str] = []
        self._untold = 0

    def finish(self) -> Resolved:
        if self._untold:
            self._problems.append(f"and {self._untold} more")
        if self._problems:
            raise ConfigError(*self._problems)
        built = []
        for section in self._sections.values():
            keys = {o.name: o.key for o in options_of(section)}
            built.append(section(**{name: self._values[key] for name, key in keys.items() if key in self._values}))
        return Resolved(Settings(built), self._origins)

    # -- farm.toml

    def read_file(self, file: Path) -> None:
        try:
            with file.open("rb") as handle:
                data = handle.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                self._problems.append(f"{file}: is larger than {MAX_FILE_BYTES} bytes, so it is no settings file")
                return
            text = data.decode()
            tree = tomllib.loads(text)
        except OSError as exc:
            self._problems.append(f"{file}: cannot be read: {exc.strerror}")
        except UnicodeDecodeError as exc:
            self._problems.append(f"{file}: is not UTF-8 text (byte {exc.start})")
        except tomllib.TOMLDecodeError as exc:
            self._problems.append(f"{file}{_position(str(exc))}")
        except RecursionError:
            self._problems.append(f"{file}: not valid TOML: too many brackets in one another")
        except ValueError:  # Python does not read numbers of more than 4300 digits
            self._problems.append(f"{file}: not valid TOML: a number has too many digits")
        else:
            lines = key_lines(text)
            for name, table in tree.items():
                self._read_table(file, lines, name, table)

    def _read_table(self, file: Path, lines: Mapping[tuple[str, ...], int], name: str, table: object) -> None:
        def where(*path: str) -> str:
            return f"{file}, line {lines.get(path) or lines.get(path[:1], 1)}"

        shown = _shown(name)

        if name not in self._sections:
            if isinstance(table, dict):
                self._problem(where(name), lambda: f"[{shown}]: no such section{self._near_section(name)}")
            else:
                self._problem(where(name), lambda: f"{shown}: stands outside of every section{self._home(name)}")
        elif not isinstance(table, dict):
            self._problem(where(name), lambda: f"{name}: expected a table [{name}], found {show(table)}")
        else:
            for key, value in table.items():
                self._assign(where(name, key), f"{name}.{key}", value, coerce=False)

    def _home(self, name: str) -> str:
        homes = [f"[{o.section.SECTION}]" for o in self._options.values() if o.name == name]
        return f"; it belongs under {' or '.join(homes)}" if homes else self._near_section(name)

    # -- environment

    def read_environ(self, environ: Mapping[str, str]) -> None:
        for variable in sorted(environ):
            value = environ[variable]
            if not variable.startswith(PREFIX) or not value.strip() or _is_of_a_service(variable, value):
                continue
            self._read_variable(variable, value)

    def _read_variable(self, variable: str, value: str) -> None:
        option = self._variables.get(variable)
        if option is not None:
            self._assign(variable, option.key, value, coerce=True)
        elif (problem := self._stray(variable)) is not None:
            self._problem(variable, lambda: problem)

    def _stray(self, variable: str) -> str | None:
        """What is wrong with an unknown variable, or None if it is none of ours (see the module's text)."""
        rest = variable.removeprefix(PREFIX)
        homes = [o.variable for o in self._options.values() if o.name.upper() == rest]
        if homes:
            return f"no such option; did you mean {' or '.join(homes)}?"
        for section in self._sections.values():
            prefix = f"{section.SECTION}_".upper()
            if rest.startswith(prefix):
                keys = {o.name.upper(): o.variable for o in options_of(section)}
                near = difflib.get_close_matches(rest.removeprefix(prefix), keys, 1, SUGGEST)
                return f"no such option; did you mean {keys[near[0]]}?" if near else "no such option"
        names = {v.removeprefix(PREFIX): v for v in self._variables}
        near = difflib.get_close_matches(rest, names, 1, NEAR)
        return f"no such option; did you mean {names[near[0]]}?" if near else None

    # -- flags

    def read_assignments(self, assignments: Iterable[tuple[str, str, object]]) -> None:
        for flag, key, value in assignments:
            if value is None:
                self._problem(flag, partial("expected section.key=value, found {}".format, show(key)))
            else:
                self._assign(flag, key, value, coerce=isinstance(value, str))

    # -- what they share

    def _problem(self, origin: str, text: Callable[[], str]) -> None:
        """One line. The text is made only if it is shown: to look for similar names takes time."""
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"{origin}: {text()}")
        else:
            self._untold += 1

    def _assign(self, origin: str, key: str, value: object, *, coerce: bool) -> None:
        option = self._options.get(key)
        if option is None:
            self._problem(origin, lambda: f"{_shown(key)}: no such option{self._near_key(key)}")
            return
        try:
            self._values[key] = from_text(option, str(value)) if coerce else checked(option, value)
        except WrongValue as wrong:
            found = "something else" if option.spec.secret else str(wrong)
            self._problem(origin, lambda: f"{key}: expected {expected(option)}, found {found}")
        else:
            self._origins[key] = origin

    def _near_key(self, key: str) -> str:
        section, _, name = key.rpartition(".")
        if section in self._sections:  # then its own keys are likelier than a key of that name elsewhere
            own = [o.name for o in options_of(self._sections[section])]
            if near := difflib.get_close_matches(name, own, 1, SUGGEST):
                return f"; did you mean {section}.{near[0]}?"
        homes = [o.key for o in self._options.values() if o.name == name]
        near = homes or difflib.get_close_matches(key, self._options, 1, SUGGEST)
        return f"; did you mean {near[0]}?" if near else ""

    def _near_section(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._sections, 1, SUGGEST)
        return f"; did you mean [{near[0]}]?" if near else f"; there are {', '.join(self._sections)}"


def _is_of_a_service(variable: str, value: str) -> bool:
    if _SERVICE_NAME.fullmatch(variable):
        return True
    return bool(_SERVICE_PORT_NAME.fullmatch(variable) and _SERVICE_PORT_VALUE.fullmatch(value))


def _shown(key: str) -> str:
    """A key as it was written, if that is fit for a line."""
    return key if key.isprintable() and len(key) <= _MAX_KEY_SHOWN else show(key)


def _position(message: str) -> str:
    """Turns tomllib's "reason (at line 3, column 5)" into ", line 3: not valid TOML: reason"."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if found is None:  # "(at end of document)"
        return f": not valid TOML: {message}"
    return f", line {found[2]}: not valid TOML: {found[1]} (column {found[3]})"
