"""Reads the settings tree: defaults, then `farm.toml`, then the environment, then flags; the later wins.

Every source is read against the same declarations (`router.options`), and all of it is read before anything
is said, so that one run names every problem: where it stands, what was expected, what was found, and for a
name that does not exist the nearest one that does.

In the environment an option is `FARM_SECTION_KEY`. Not every variable that begins with `FARM_` is ours (a
cluster scheduler makes `FARM_SERVICE_HOST` and `FARM_PORT_80_TCP` for a service called farm), so an unknown
one is an error if it

- begins with the name of a section (`FARM_LISTEN_PROT`), or
- is the name of an option without its section (`FARM_WORKERS`), or
- is nearly the name of one (`FARM_LISEN_PORT`),

and is left alone otherwise. `render_default` and `as_toml` write the tree; they stand in `farm.configtext`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farm.optionvalue import PREFIX, WrongValue, checked, expected, from_text, options_of, show
from router.options import Section, Settings

DEFAULT_FILE: Final = Path("farm.toml")
NEAR: Final = 0.8  # difflib's ratio from which an unknown FARM_ variable counts as a misspelt option
SUGGEST: Final = 0.6  # and from which a name is worth suggesting


class ConfigError(Exception):
    """The settings cannot be used. `problems` has one line each, fit to be shown to whoever wrote them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The effective settings and, by key, the source of every value that is not a default."""

    settings: Settings
    origins: Mapping[str, str]


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
) -> Resolved:
    """Read all sources.

    Args:
        sections: the whole tree.
        file: a farm.toml, or None for none.
        foreign: what a configuration file of another server says, as (where it says so, key, value); it counts more
            than farm.toml and less than the environment.
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
    return reader.finish()


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

    def finish(self) -> Resolved:
        if self._problems:
            raise ConfigError(self._problems)
        built = []
        for section in self._sections.values():
            keys = {o.name: o.key for o in options_of(section)}
            built.append(section(**{name: self._values[key] for name, key in keys.items() if key in self._values}))
        return Resolved(Settings(built), self._origins)

    # -- farm.toml

    def read_file(self, file: Path) -> None:
        try:
            text = file.read_bytes().decode()
            tree = tomllib.loads(text)
        except OSError as exc:
            self._problems.append(f"{file}: cannot be read: {exc.strerror}")
        except UnicodeDecodeError as exc:
            self._problems.append(f"{file}: is not UTF-8 text (byte {exc.start})")
        except tomllib.TOMLDecodeError as exc:
            self._problems.append(f"{file}{_position(str(exc))}")
        else:
            for name, table in tree.items():
                self._read_table(file, text, name, table)

    def _read_table(self, file: Path, text: str, name: str, table: object) -> None:
        def where(*path: str) -> str:
            return f"{file}, line {line_of(text, path)}"

        if name not in self._sections:
            if isinstance(table, dict):
                self._problems.append(f"{where(name)}: [{name}]: no such section{self._near_section(name)}")
            else:
                homes = [f"[{o.section.SECTION}]" for o in self._options.values() if o.name == name]
                hint = f"; it belongs under {' or '.join(homes)}" if homes else self._near_section(name)
                self._problems.append(f"{where(name)}: {name}: stands outside of every section{hint}")
        elif not isinstance(table, dict):
            self._problems.append(f"{where(name)}: {name}: expected a table [{name}], found {show(table)}")
        else:
            for key, value in table.items():
                self._assign(where(name, key), f"{name}.{key}", value, coerce=False)

    # -- environment

    def read_environ(self, environ: Mapping[str, str]) -> None:
        for variable in sorted(environ):
            if not variable.startswith(PREFIX):
                continue
            option = self._variables.get(variable)
            if option is not None:
                self._assign(variable, option.key, environ[variable], coerce=True)
            elif (problem := self._stray(variable)) is not None:
                self._problems.append(f"{variable}: {problem}")

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
                self._problems.append(f"{flag}: expected section.key=value, found {show(key)}")
            else:
                self._assign(flag, key, value, coerce=isinstance(value, str))

    # -- what they share

    def _assign(self, origin: str, key: str, value: object, *, coerce: bool) -> None:
        option = self._options.get(key)
        if option is None:
            self._problems.append(f"{origin}: {key}: no such option{self._near_key(key)}")
            return
        try:
            self._values[key] = from_text(option, str(value)) if coerce else checked(option, value)
        except WrongValue as wrong:
            found = "something else" if option.spec.secret else str(wrong)
            self._problems.append(f"{origin}: {key}: expected {expected(option)}, found {found}")
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


def line_of(text: str, path: Sequence[str]) -> int:
    """The line (from 1) on which a key of a TOML document is set.

    `path` leads to a key that the document has. No second TOML parser: the key's statement begins after the
    longest beginning of the document that is valid TOML and does not have the key.
    """
    lines = text.splitlines(keepends=True)
    without = 0
    for count in range(1, len(lines) + 1):
        try:
            node: object = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value of several lines
        for name in path:
            if not isinstance(node, dict) or name not in node:
                without = count
                break
            node = node[name]
        else:
            break
    return without + 1


def _position(message: str) -> str:
    """Turns tomllib's "reason (at line 3, column 5)" into ", line 3: not valid TOML: reason"."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if found is None:  # "(at end of document)"
        return f": not valid TOML: {message}"
    return f", line {found[2]}: not valid TOML: {found[1]} (column {found[3]})"
