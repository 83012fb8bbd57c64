"""PHP and Ruby: this machine's, or what tests/install-servers has unpacked, whose libraries are not where they look."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from support.farm_fixture import ROOT
from support.installed import find_program

_UNPACKED = ROOT / ".venv" / "servers" / "usr"


class Interpreter(NamedTuple):
    """How a program in that language is run."""

    command: list[str]
    environment: dict[str, str]


def php() -> Interpreter:
    """Without this machine's php.ini."""
    program = find_program("php", "php8.2")
    return Interpreter([program, "-n"], _environment(program, LD_LIBRARY_PATH=_libraries()))


def ruby() -> Interpreter:
    """Without gems: nothing but what comes with it."""
    program = find_program("ruby", "ruby3.1")
    folders = [*_UNPACKED.glob("lib/ruby/[0-9]*"), *_UNPACKED.glob("lib/*-linux-gnu/ruby/[0-9]*")]
    return Interpreter(
        [program, "--disable-gems"], _environment(program, LD_LIBRARY_PATH=_libraries(), RUBYLIB=folders)
    )


def _libraries() -> Iterable[Path]:
    return _UNPACKED.glob("lib/*-linux-gnu")


def _environment(program: str, **folders: Iterable[Path]) -> dict[str, str]:
    if not Path(program).is_relative_to(_UNPACKED):
        return {}
    return {name: os.pathsep.join(map(str, found)) for name, found in folders.items()}
