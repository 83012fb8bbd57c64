"""A farm runs without the libraries that only bench, demo and tests need; those commands name what to install."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from farm.cli import commands

ROOT = Path(__file__).resolve().parents[2]
EXTRA_MODULES = ("http_ece", "jinja2", "matplotlib", "numpy", "opentelemetry", "psutil", "py_vapid", "trio_websocket")
COMMANDS = [
    ("bench", "bench", "jinja2, matplotlib, numpy, psutil, trio_websocket"),
    ("demo", "demo", "http_ece, py_vapid, trio_websocket"),  # of a dialect, which may not be there
]
# As if they were not installed: neither found nor imported.
BLOCK = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRA_MODULES!r}:
            raise ModuleNotFoundError(name)
import importlib.util
whole = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {EXTRA_MODULES!r} else whole(name, package)
sys.meta_path.insert(0, Blocked())
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK + code]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("command", "extra", "missing"), [one for one in COMMANDS if one[0] in commands.found()])
def test_a_command_says_what_to_install(command: str, extra: str, missing: str) -> None:
    arguments = [command, "connect"] if command == "bench" else [command]
    ran = _run(f"from farm.cli import main; sys.exit(main({arguments!r}))")
    expected = f"farm {command}: {missing} not installed: `make tools`, or pip install 'connection-farm[{extra}]'\n"
    assert (ran.returncode, ran.stderr) == (1, expected)


def test_a_farm_that_is_to_make_traces_says_what_to_install() -> None:
    arguments = ["start", "--set", "trace.endpoint=http://127.0.0.1:4318/v1/traces"]
    ran = _run(f"from farm.cli import main; sys.exit(main({arguments!r}))")
    expected = "trace.endpoint: OpenTelemetry is not installed: `make tools`, or pip install 'connection-farm[trace]'\n"
    assert (ran.returncode, ran.stderr) == (2, expected)


def test_nothing_of_a_farm_imports_them() -> None:
    ran = _run(
        "import importlib, pkgutil, farm, router\n"
        "for package in (farm, router):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if '_demo' not in found.name and found.name != 'farm.__main__':\n"
        "            importlib.import_module(found.name)\n"
        "print(len(sys.modules) > 100)\n"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\n", "")


def test_each_of_them_is_in_an_extra_and_not_in_the_farm_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    extras = [name for extra in ("bench", "demo") for name in project["optional-dependencies"][extra]]
    for name in (module.replace("_", "-") for module in EXTRA_MODULES):
        assert f"\n{name}==" not in locked
        assert not any(wanted.startswith(name) for wanted in project["dependencies"])
    assert {name.partition(">")[0] for name in extras} <= {module.replace("_", "-") for module in EXTRA_MODULES}
