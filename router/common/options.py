"""Settings machinery: what an option is, and a tree of sections. Which sections exist is said by their
owners.

A section is a frozen dataclass whose fields are made by `option()`; its `SECTION` is the table's name in
farm.toml. Every option is declared once, here its type, default, unit, range and one line of help live
together; the file, the environment (`FARM_SECTION_KEY`) and the flags (`--set section.key=value`) are all
read against that declaration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """What is known of one option besides its type and default."""

    help: str
    unit: str = ""
    ge: float | None = None
    le: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""  # a text option must match it whole; then `expects` says what is needed
    expects: str = ""
    secret: bool = False  # never shown: not in messages, not in the effective settings
    # Of a text, or of each text in a list: returns the form that is used, raises ValueError for what is none.
    check: Callable[[str], str] | None = None


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    choices: tuple[str, ...] = (),
    pattern: str = "",
    expects: str = "",
    secret: bool = False,
    check: Callable[[str], str] | None = None,
) -> Any:
    """A dataclass field that carries its own documentation and range. `ge` and `le` are inclusive."""
    spec = OptionSpec(help, unit, ge, le, choices, pattern, expects, secret, check)
    return dataclasses.field(default=default, metadata={"option": spec})


def spec_of(field: dataclasses.Field[Any]) -> OptionSpec:
    """The specification behind a field that `option()` made."""
    spec = field.metadata["option"]
    assert isinstance(spec, OptionSpec)
    return spec


class Section:
    """Base of every section. Subclasses are frozen dataclasses; `SECTION` is the table's name."""

    SECTION: ClassVar[str]
    HELP: ClassVar[str] = ""
    AT_START: ClassVar[frozenset[str]] = frozenset()
    """Options that are read at the start only: a reload keeps their value, and names those that have changed."""


S = TypeVar("S", bound=Section)


class Settings:
    """The effective settings: one instance of every known section, fetched by its class."""

    def __init__(self, sections: Iterable[Section]) -> None:
        self._sections: dict[type[Section], Section] = {type(s): s for s in sections}

    def get(self, section: type[S]) -> S:
        """The instance of this section class.

        Raises: KeyError if the tree was built without that section.
        """
        found = self._sections[section]
        assert isinstance(found, section)
        return found

    def __iter__(self) -> Iterator[Section]:
        return iter(self._sections.values())

    def replace(self, section: type[S], **changes: Any) -> Settings:
        """A copy with some options of one section changed (used where a value is known only at run time)."""
        sections: dict[type[Section], Section] = dict(self._sections)
        sections[section] = dataclasses.replace(self.get(section), **changes)  # type: ignore[type-var]
        return Settings(sections.values())


def defaults(classes: Iterable[type[Section]]) -> Settings:
    """A tree of these sections with every option at its default."""
    return Settings([cls() for cls in classes])


def as_mapping(settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    """The tree as plain tables: section name -> key -> value, in declaration order."""
    return {s.SECTION: dataclasses.asdict(s) for s in settings}  # type: ignore[call-overload]


def from_mapping(classes: Iterable[type[Section]], tables: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The tree again from what `as_mapping` gave, as it was sent to another process (tuples may have become lists).

    That process may be of another release: what it did not know is at its default here, and what is not known here is
    left out.
    """
    sections = []
    for cls in classes:
        values, known = tables.get(cls.SECTION, {}), {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        sections.append(cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}))
    return Settings(sections)
