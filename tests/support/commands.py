"""The farm's command line in this process, for tests of what commands say to a farm: a process costs a second each."""

from __future__ import annotations

import pytest

from farm.cli import run
from support.farm_fixture import Farm


class Commands:
    """Commands on one farm, on a terminal of 80 columns."""

    def __init__(
        self, farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
    ) -> None:
        """flags: that each command is given besides."""
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.chdir(farm.data)
        self._flags = ("--admin-port", str(farm.admin_port), *flags)
        self._capsys = capsys

    def __call__(self, *words: str) -> str:
        """What a command prints that does what it should."""
        status, printed, complained = self.run(*words)
        assert (status, complained) == (0, "")
        return printed

    def fails(self, *words: str) -> tuple[int, str]:
        """Exit code and the one line of a command that does not."""
        status, printed, complained = self.run(*words)
        assert (printed, complained.count("\n")) == ("", 1)
        return status, complained

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, and what it has printed on stdout and stderr."""
        self._capsys.readouterr()
        status = run([*words, *self._flags])
        return status, *self._capsys.readouterr()
