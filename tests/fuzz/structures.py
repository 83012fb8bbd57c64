"""Changes to inputs that keep their form: JSON lines, and nested values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    "",
    "0",
    "a",
    "\0",
    "\ud800",
    "\u20ac" * 50,
    "x" * 300,
    [],
    [[]],
    {},
    {"": None},
)


def changed(chance: random.Random, value: Any, odd: Sequence[Any] = ODD) -> Any:
    """A value in which something is another, more, or missing."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        out = dict(value)
        key = chance.choice(list(out))
        what = chance.randrange(6)
        if what == 0:
            del out[key]
        elif what == 1:
            out[chance.choice(("x", "", key + key if isinstance(key, str) else "y"))] = chance.choice(odd)
        elif what == 2:
            out[key] = chance.choice(odd)
        else:
            out[key] = changed(chance, out[key], odd)
        return out
    if isinstance(value, list | tuple) and value and chance.random() < 0.8:
        items = list(value)
        at = chance.randrange(len(items))
        what = chance.randrange(7)
        if what == 0:
            del items[at]
        elif what == 1:
            items.insert(at, chance.choice(odd))
        elif what == 2:
            items.insert(at, items[at])
        elif what == 3:
            items[at] = chance.choice(odd)
        else:
            items[at] = changed(chance, items[at], odd)
        return items
    if isinstance(value, str) and value and chance.random() < 0.5:
        at = chance.randrange(len(value))
        return value[:at] + chance.choice(("", "\0", "A", "-", "\u00e9", value[at] * 2)) + value[at + 1 :]
    return chance.choice(odd)


def json_lines(words: Sequence[str] = ()) -> Callable[[random.Random, bytes], bytes]:
    """Changes of lines that each hold a JSON text, or begin with "!"."""

    def mutate(chance: random.Random, data: bytes) -> bytes:
        lines = data.split(b"\n")
        at = chance.randrange(len(lines))
        what = chance.randrange(8)
        if what == 0 and len(lines) > 1:
            del lines[at]
        elif what == 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        elif what == 2:
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif what == 3 and words:
            lines.insert(at, chance.choice(words).encode())
        else:
            try:
                value = json.loads(lines[at])
            except ValueError:
                return b"\n".join(lines)
            lines[at] = json.dumps(changed(chance, value)).encode()
        return b"\n".join(lines)

    return mutate


def check_problems(problems: tuple[str, ...]) -> None:
    """Messages for an operator: each is a line that can be printed."""
    assert problems
    for problem in problems:
        assert "\n" not in problem and len(problem) < 5000, problem
