"""One option as the sources see it: its names, what it takes, and its value from text or from TOML."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_origin, get_type_hints

from router.common.options import OptionSpec, Section, spec_of

PREFIX: Final = "FARM_"

_TRUE: Final = frozenset(("true", "1", "yes", "on"))
_FALSE: Final = frozenset(("false", "0", "no", "off"))
_MAX_SHOWN: Final = 80  # characters of a wrong value in a message
# What no option can use, whatever its own range: beyond, a number would not fit where the system or SQLite takes it.
_MOST: Final = 2**31 - 1
_MOST_BYTES: Final = 2**53


class WrongValue(Exception):
    """A value is not what its option takes. Carries what was found, for the message."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the tree, with everything that the sources are read against."""

    section: type[Section]
    name: str
    kind: Any  # int, float, bool, str or tuple[str, ...]
    default: Any
    spec: OptionSpec

    @property
    def key(self) -> str:
        """As written in flags and messages: `listen.device_port`."""
        return f"{self.section.SECTION}.{self.name}"

    @property
    def variable(self) -> str:
        """As written in the environment: `FARM_LISTEN_DEVICE_PORT`."""
        return f"{PREFIX}{self.section.SECTION}_{self.name}".upper()


def options_of(section: type[Section]) -> Iterator[Option]:
    """The options of a section, in the order of their declaration."""
    hints = get_type_hints(section)
    for field in dataclasses.fields(section):  # type: ignore[arg-type]  # every section is a dataclass
        yield Option(section, field.name, hints[field.name], field.default, spec_of(field))


def expected(option: Option) -> str:
    """What the option takes, in words: "a whole number from 0 to 65535", "text, one of text, json"."""
    spec = option.spec
    if spec.expects:
        return spec.expects
    if option.kind is bool:
        return "true or false"
    if get_origin(option.kind) is tuple:
        return "a list of texts" + (f", each one of {', '.join(spec.choices)}" if spec.choices else "")
    if option.kind is str:
        return f"one of {', '.join(spec.choices)}" if spec.choices else "text"
    words = ["a whole number" if option.kind is int else "a number"]
    match spec.ge, spec.le:
        case None, None:
            pass
        case low, None:
            words.append(f"of at least {low}")
        case None, high:
            words.append(f"of at most {high}")
        case low, high:
            words.append(f"from {low} to {high}")
    return " ".join(words) + (f" (unit: {spec.unit})" if spec.unit else "")


def from_text(option: Option, text: str) -> Any:
    """The value that an environment variable or a flag gives; a list is comma separated.

    Raises: WrongValue.
    """
    word = text.strip()
    try:
        if option.kind is bool:
            if word.lower() not in _TRUE | _FALSE:
                raise WrongValue(show(text))
            return word.lower() in _TRUE
        if option.kind is int:
            return checked(option, int(word))
        if option.kind is float:
            return checked(option, float(word))
    except ValueError:
        raise WrongValue(show(text)) from None
    if get_origin(option.kind) is tuple:
        return checked(option, [part.strip() for part in text.split(",") if part.strip()])
    return checked(option, text)


def checked(option: Option, value: object) -> Any:
    """The value as its option's type, within its range. `value` has a type of TOML.

    Raises: WrongValue.
    """
    if get_origin(option.kind) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise WrongValue(show(value))
        try:
            return tuple(_text(option.spec, item) for item in value)
        except ValueError:
            raise WrongValue(show(value)) from None
    if option.kind is str and option.spec.pattern and type(value) is int and abs(value) <= _MOST:
        value = str(value)  # `workers = 4` is what one writes, where `workers = "auto"` can be written too
    if option.kind is float and type(value) is int and abs(value) <= _MOST_BYTES:
        value = float(value)
    if type(value) is not option.kind:
        raise WrongValue(show(value))
    if isinstance(value, str):
        try:
            return _text(option.spec, value)
        except ValueError:
            raise WrongValue(show(value)) from None
    return value if isinstance(value, bool) else _number(option.spec, value)


def _text(spec: OptionSpec, text: str) -> str:
    """Raises: ValueError."""
    text.encode()  # a name that is not UTF-8 would end whatever writes it down
    if "\0" in text or (spec.choices and text not in spec.choices):
        raise ValueError(text)
    if spec.pattern and re.fullmatch(spec.pattern, text, re.ASCII) is None:
        raise ValueError(text)
    return text if spec.check is None else spec.check(text)


def _number(spec: OptionSpec, value: Any) -> Any:
    """Raises: WrongValue."""
    low = -math.inf if spec.ge is None else spec.ge
    high = math.inf if spec.le is None else spec.le
    if not -math.inf < value < math.inf or not low <= value <= high:
        raise WrongValue(show(value))
    if abs(value) > (_MOST_BYTES if spec.unit == "bytes" else _MOST):
        raise WrongValue(f"{show(value)}, which is beyond what can be used")
    return value + 0.0 if isinstance(value, float) else value  # so that -0.0 is 0.0


def show(value: object) -> str:
    """A wrong value, on one line and not too long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_MAX_SHOWN:
        return "a number of very many digits"  # Python refuses to write some of them out
    try:
        text = repr(value) if not isinstance(value, bool) else str(value).lower()
    except (ValueError, RecursionError):  # such a number, or very many brackets, in a list or a table
        return "something that is too long to be shown"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
