"""`farm completion`: shells complete the commands and their flags, those of `farm bench` too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.farm_command import environ
from support.installed import find_program, with_libraries

BASH = """
source <(farm completion bash)
[[ $(complete -p farm) == "complete -o nosort -F _farm_completion farm" ]] || exit 1
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_farm_completion farm
printf '%s\\n' "${COMPREPLY[@]}"
"""
# There is no line to edit, so what the function calls is put in its place: how it is registered and what it offers.
ZSH = """
module_path+=($MODULES)
compdef() { [[ "$*" == "_farm_completion farm" ]] || exit 1 }
_describe() { print -l -- ${(P)3} }
compadd() { print -l -- ${(P)@[-1]} }
source <(farm completion zsh)
words=("$@") CURRENT=$#
_farm_completion
"""
FISH = """
farm completion fish | source
complete -C "$argv"
"""
OF_BENCH = [
    (("farm", "bench", "co"), ["compare", "connect"]),
    (("farm", "bench", "push", "--store", "redis"), ["redis", "redis-replica"]),
]
WORDS = [
    (("farm", "dev"), ["device"]),
    (("farm", "device", "f"), ["find", "forget"]),
    (("farm", "start", "--router-"), ["--router-port"]),
    (("farm", "completion", ""), ["bash", "zsh", "fish"]),
    *OF_BENCH,
]


def completed(shell: str, words: tuple[str, ...], path: str) -> list[str]:
    """What a shell that has its file offers for these words, in its order."""
    program = find_program(shell)
    given = {
        "bash": ["--norc", "-c", BASH, "bash", *words],
        "zsh": ["-f", "-c", ZSH, "zsh", *words],
        "fish": ["--no-config", "-c", FISH, " ".join(words)],
    }
    modules = ":".join(map(str, Path(program).parents[1].glob("usr/lib/*/zsh/*")))
    environment = environ(PATH=path, MODULES=modules, TERM="dumb")
    environment["LD_LIBRARY_PATH"] = with_libraries(program)["LD_LIBRARY_PATH"]
    command = [program, *given[shell]]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [re.split("[:\t]", line)[0] for line in done.stdout.splitlines()]  # what follows describes it


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a `farm` from this tree first."""
    program = tmp_path / "farm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m farm "$@"\n')
    program.chmod(0o755)
    return os.pathsep.join((str(tmp_path), "/usr/bin", "/bin"))


@pytest.mark.parametrize(("words", "found"), WORDS, ids=str)
def test_bash_completes(path: str, words: tuple[str, ...], found: list[str]) -> None:
    assert completed("bash", words, path) == found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize(("words", "found"), OF_BENCH, ids=str)
def test_other_shells_complete(path: str, shell: str, words: tuple[str, ...], found: list[str]) -> None:
    assert completed(shell, words, path) == found
