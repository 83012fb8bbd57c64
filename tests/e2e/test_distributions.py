"""What `make dist` builds: nothing is missing in it, a farm runs from it outside of the
source tree, and what is built again is the same."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dialect_files import tracked
from support.farm_fixture import ROOT, Farm, environ

from router import __version__

PACKAGES = ("bench/", "farm/", "router/")
FIGURES = "bench/results/"
"""Measurements, which stay out of the wheel."""
MADE = 1_700_000_000
"""SOURCE_DATE_EPOCH of all that is built."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree: setuptools writes into it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel."""
    folder = tmp_path_factory.mktemp("distributions")
    run(str(tree / "deploy/dist"), sys.executable, str(tree), str(folder), SOURCE_DATE_EPOCH=str(MADE))
    return folder


def run(*words: str, **variables: str) -> str:
    """Run a command that knows nothing of the source tree. Returns: what it printed."""
    environment = environ() | {"PYTHONPATH": ""} | variables
    ran = subprocess.run(words, cwd="/", env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_they_are_fit_for_a_package_index(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir()))


def test_the_source_distribution_holds_the_tree(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    expected = {name for name in tracked() if not name.startswith(".")}
    assert expected - inside == set(), "MANIFEST.in leaves it out"


def test_the_wheel_holds_every_file_of_the_packages(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if name.startswith(PACKAGES)}
    expected = {name for name in tracked() if name.startswith(PACKAGES) and not name.startswith(FIGURES)}
    assert inside == expected, "package-data in pyproject.toml says what goes in that is no Python"


def test_what_is_built_again_has_the_same_bytes(built: Path, tree: Path, tmp_path: Path) -> None:
    """From the same files, written at another time by somebody with another umask."""
    for file in tree.rglob("*"):
        os.utime(file)
        file.chmod(file.stat().st_mode | 0o020)
    build = (str(tree / "deploy/dist"), sys.executable, str(tree), str(tmp_path / "again"))
    run("/bin/sh", "-c", 'umask 002; exec "$@"', "sh", *build, SOURCE_DATE_EPOCH=str(MADE))
    before, again = ({one.name: hashed(one) for one in folder.iterdir()} for folder in (built, tmp_path / "again"))
    assert again == before
    assert set(again) == {f"connection_farm-{__version__}{rest}" for rest in (".tar.gz", "-py3-none-any.whl")}


def hashed(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class InstalledFarm(Farm):
    """A farm that is started by the command that the wheel brings."""

    def arguments(self) -> list[str]:
        return [str(self.root / "venv" / "bin" / "farm"), *super().arguments()[3:]]


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledFarm]:
    """A farm from an environment of its own, with the dependencies of the one that runs the tests. `make test-pipx` has
    pipx install them, too."""
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "venv", with_pip=False, symlinks=True)
    wheel = str(next(built.glob("*.whl")))
    python = str(root / "venv" / "bin" / "python")
    options = ("--quiet", "--no-index", "--no-deps", "--no-compile")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    (site,) = (root / "venv").glob("lib/*/site-packages")
    # As a path alone: links to source trees, which stand there as .pth files, are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = run(python, "-c", "import bench, farm, router; print(bench.__file__, farm.__file__, router.__file__)")
    assert all(Path(name).is_relative_to(site) for name in found.split())
    farm = InstalledFarm(root / "data", workers=1, root=root)
    farm.start()
    yield farm
    farm.stop()


def test_it_is_the_version_that_was_built(installed: InstalledFarm) -> None:
    printed = run(installed.arguments()[0], "--version")
    assert printed == f"farm {__version__} (Python {platform.python_version()})\n"
    assert installed.status()["version"] == __version__


def test_a_farm_runs_from_the_wheel(installed: InstalledFarm) -> None:
    assert installed.healthy()


@pytest.mark.parametrize("page", ["/", "/metrics", "/api/v1/openapi.json"])
def test_its_admin_port_has_its_pages(installed: InstalledFarm, page: str) -> None:
    assert installed.admin(page)[0] == 200
