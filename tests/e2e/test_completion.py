"""`farm completion`: shells complete the commands and their flags."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.farm_command import environ
from support.installed import find_program

COMPLETE = """
source <(farm completion bash)
complete -p farm
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_farm_completion farm
printf '%s\\n' "${COMPREPLY[@]}"
"""
BEGINNINGS = {"bash": "_farm_completion() {", "zsh": "#compdef farm", "fish": "function _farm_completion;"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a `farm` from this tree first."""
    program = tmp_path / "farm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m farm "$@"\n')
    program.chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("farm", "dev"), ["device"]),
        (("farm", "device", "f"), ["find", "forget"]),
        (("farm", "start", "--router-"), ["--router-port"]),
        (("farm", "completion", ""), ["bash", "zsh", "fish"]),
    ],
    ids=str,
)
def test_bash_completes(path: str, words: tuple[str, ...], found: list[str]) -> None:
    command = [find_program("bash"), "--norc", "-c", COMPLETE, "bash", *words]
    done = subprocess.run(command, env=environ(PATH=path), check=True, capture_output=True, text=True, timeout=60)
    registered, *completed = done.stdout.splitlines()
    assert registered == "complete -o nosort -F _farm_completion farm"
    assert completed == found
    assert done.stderr == ""


@pytest.mark.parametrize("shell", BEGINNINGS)
def test_a_shell_understands_its_file(path: str, tmp_path: Path, shell: str) -> None:
    """Its syntax is checked where the shell is installed."""
    made = ["farm", "completion", shell]
    text = subprocess.run(made, env=environ(PATH=path), check=True, capture_output=True, text=True, timeout=60).stdout
    assert text.startswith(BEGINNINGS[shell])
    file = tmp_path / "completion"
    file.write_text(text)
    if program := shutil.which(shell):
        subprocess.run([program, "-n", str(file)], check=True, timeout=60)
