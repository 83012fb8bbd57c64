"""What `make test` installs for some tests, and what becomes of them where it is missing: curl, browsers, Node.js,
packages of npm.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from support.farm_fixture import ROOT

NPM: Final = ROOT / "tests" / "npm"
"""Scripts for Node.js, and the packages that they need."""
_PATIENCE_S: Final = 60.0


def missing(what: str) -> NoReturn:
    """Skip the test, for want of something; with CI=true fail it."""
    reasons = ROOT / ".venv" / ".missing-for-tests"
    why = reasons.read_text().strip() if reasons.exists() else ""
    cannot(why or f"tests: {what} not found; make test installs it where it is root")


def cannot(why: str) -> NoReturn:
    """Skip the test, because this machine cannot run it; with CI=true fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def find_program(*names: str) -> str:
    """The first of these programs that there is; an empty name is none."""
    for name in names:
        if name and (path := shutil.which(name)):
            return path
    missing(next(filter(None, names)))


def with_libraries(program: str | Path) -> dict[str, str]:
    """The environment to run a program in: where tests/install-servers has unpacked it, its libraries are beside it."""
    folders = [found for name in ("", "/systemd") for found in Path(program).parents[1].glob(f"lib/*-linux-gnu{name}")]
    return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders))}


def ends_with_us() -> list[str]:
    """What a command line begins with so that its program ends with the process that starts it, however that ends."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL"] if program else []


def npm_file(path: str) -> Path:
    """A file of an npm package."""
    found = NPM / "node_modules" / path
    if not found.is_file():
        missing("npm or tests/npm/node_modules")
    return found


def run_npm(script: str, package: str, order: object) -> Any:
    """Run a script of tests/npm that uses this package. Returns: its answer to the order, both as JSON."""
    node = find_program("node")
    npm_file(f"{package}/package.json")
    text = json.dumps(order)
    done = subprocess.run(
        [node, script], cwd=NPM, input=text, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
