"""Writes the settings tree as TOML: the commented default file, and what is in force with its sources."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from farm.config import Resolved
from farm.option_value import Option, expected, options_of
from router.common.options import Section

_HEAD: Final = """\
# farm.toml: every option of the connection farm, with its default.
#
# Lines that begin with "#" and a letter are options that are off: take the "#" away and change the value. An
# option can also be given as a variable, FARM_SECTION_KEY (FARM_LISTEN_DEVICE_PORT=9000), and as a flag,
# --set section.key=value; flags win over variables, variables over this file. `farm check-config` tells what
# is wrong with all of them, or what is in force.
"""
_HIDDEN: Final = "(hidden)"


def render_default(sections: Iterable[type[Section]]) -> str:
    """A farm.toml with every option commented out, each under its help, type, range, unit and variable.

    As printed it is valid TOML and changes nothing; with the "#" before every key taken away it sets every
    default.
    """
    parts = [_HEAD]
    for section in sections:
        lines = ["", f"# {section.HELP}".rstrip(), f"[{section.SECTION}]"]
        for option in options_of(section):
            lines.append(f"# {option.spec.help}")
            lines.append(f"# {expected(option)}; {option.variable}")
            lines.append(f"#{option.name} = {toml_value(option.default)}")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def as_toml(resolved: Resolved) -> str:
    """The effective settings, whole, as a farm.toml; a comment names the source of each value that is no
    default.

    Secret values are not shown, so where one is set that line is a comment.
    """
    blocks = []
    for section in resolved.settings:
        lines = [f"[{section.SECTION}]"]
        lines.extend(_line(option, getattr(section, option.name), resolved) for option in options_of(type(section)))
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _line(option: Option, value: Any, resolved: Resolved) -> str:
    origin = resolved.origins.get(option.key)
    note = f"  # {origin}" if origin is not None else ""
    if option.spec.secret and value != option.default:
        return f"#{option.name} = {_HIDDEN}{note}"
    return f"{option.name} = {toml_value(value)}{note}"


def toml_value(value: Any) -> str:
    """A value of an option's type in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's quoting is TOML's but for DEL, which TOML wants escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return repr(value)
