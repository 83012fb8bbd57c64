"""What a dialect brings to the command line: another server's configuration file, and a check of its settings."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from farm import cli
from router.common.errors import MendableError
from router.common.options import Settings
from router.dialects import DialectSpec, ForeignConfig, ForeignSettings


def reader(file: Path) -> ForeignSettings:
    """A file with a port in it, or `bad`."""
    text = file.read_text().strip()
    if text == "bad":
        raise MendableError(f"--other-config: {file}: no port", f"--other-config: {file}: no host")
    return ForeignSettings(
        [(f"--other-config {file}", "listen.device_port", int(text))], ("other: TLS has no meaning",)
    )


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Lets these be all dialects that there are, for what reads the command line."""
    monkeypatch.chdir(tmp_path)  # where there is no farm.toml

    def speak(*specs: DialectSpec) -> None:
        for module in ("farm.dialects", "farm.sections"):
            monkeypatch.setattr(f"{module}.specs", lambda: list(specs))
        monkeypatch.setattr("farm.dialects.sides", list)

    return speak


OTHER = DialectSpec(name="other", foreign_configs=(ForeignConfig("--other-config", "Another server's file.", reader),))


def test_its_settings_count_and_its_warnings_are_told(
    speak: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speak(OTHER)
    file = tmp_path / "other.conf"
    file.write_text("9123")
    assert cli.run(["check-config", "--other-config", str(file)]) == 0
    told = capsys.readouterr()
    assert tomllib.loads(told.out)["listen"]["device_port"] == 9123
    assert told.err.splitlines() == ["other: TLS has no meaning"]
    assert cli.run(["check-config", "--other-config", str(file), "--device-port", "9000"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["listen"]["device_port"] == 9000


def test_what_is_wrong_in_it_is_told_in_a_line_each(
    speak: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speak(OTHER)
    file = tmp_path / "other.conf"
    file.write_text("bad")
    assert cli.run(["check-config", "--other-config", str(file)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"--other-config: {file}: no port",
        f"--other-config: {file}: no host",
    ]


def test_every_dialect_that_is_on_is_checked(speak: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*problems: str) -> Callable[[Settings], None]:
        def check(settings: Settings) -> None:
            raise MendableError(*problems)

        return check

    speak(
        DialectSpec(name="one", check=fails("one.file: missing", "one.file: empty")),
        DialectSpec(name="off", on=False, check=fails("off: never asked")),
        DialectSpec(name="two", check=fails("two.key: none")),
    )
    assert cli.run(["check-config"]) == 2
    assert capsys.readouterr().err.splitlines() == ["one.file: missing", "one.file: empty", "two.key: none"]
