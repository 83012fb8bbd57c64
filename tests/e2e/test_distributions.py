"""What `make dist` builds: nothing is missing in it, and a farm runs from it outside of the source tree."""

from __future__ import annotations

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

PACKAGES = ("bench/", "farm/", "router/")
FIGURES = "bench/results/"
"""Measurements, which stay out of the wheel."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel, built from a copy: setuptools writes into the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    folder = tmp_path_factory.mktemp("distributions")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(tree))
    return folder


def run(*words: str) -> str:
    """Run a command that knows nothing of the source tree. Returns: what it printed."""
    environment = environ() | {"PYTHONPATH": ""}
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


class InstalledFarm(Farm):
    """A farm that is started by the command that the wheel brings."""

    def arguments(self) -> list[str]:
        return [str(self.root / "venv" / "bin" / "farm"), *super().arguments()[3:]]


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledFarm]:
    """A farm from an environment of its own, with the dependencies of the one that runs the tests."""
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


def test_a_farm_runs_from_the_wheel(installed: InstalledFarm) -> None:
    assert installed.healthy()


@pytest.mark.parametrize("page", ["/", "/metrics", "/api/v1/openapi.json"])
def test_its_admin_port_has_its_pages(installed: InstalledFarm, page: str) -> None:
    assert installed.admin(page)[0] == 200
