"""Who imports whom: packages form no circle, what both sides share knows neither, and a worker loads no router."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest
from support.sources import ROOT, imports

from farm.dialects import sides
from router.dialects import specs

DIALECTS: Final = sorted({spec.name for spec in specs()} | {side.spec.name for side in sides()})
ROUTER_SIDE: Final = ("router.core.hub", "router.core.committer", "router.http", "router.link", "router.process")


def module_of(path: Path) -> str:
    """A file's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, at_once: bool = False) -> Iterator[str]:
    """The modules of ours that a file imports. at_once: as `imports` has it."""
    for node in imports(path, at_once=at_once):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif node.module is not None:
            yield from _from(node.module, tuple(name.name for name in node.names))


@cache
def _from(module: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """What `from module import names` imports: a module of the package, or the package itself."""
    folder = ROOT / module.replace(".", "/")
    return tuple(
        f"{module}.{name}" if (folder / f"{name}.py").exists() or (folder / name).is_dir() else module for name in names
    )


def edges(folder: str, *, at_once: bool = False) -> Iterator[tuple[str, str]]:
    """Each module in a folder with each that it imports."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in imported(path, at_once=at_once):
            yield module_of(path), name


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_what_both_sides_share_imports_neither() -> None:
    allowed = re.compile(r"router|router\.common(\..*)?")
    strange = {(who, whom) for who, whom in edges("router/common") if is_in(whom, "router") or is_in(whom, "farm")}
    assert not [(who, whom) for who, whom in strange if allowed.fullmatch(whom) is None]


def test_packages_form_no_circle() -> None:
    """A package is a folder of the router's or the farm's, or a module beside them."""
    graph: dict[str, set[str]] = {}
    for who, whom in (*edges("router", at_once=True), *edges("farm", at_once=True)):
        one, other = (".".join(name.split(".")[:2]) for name in (who, whom))
        if one != other and other.startswith(("router.", "farm.")):
            graph.setdefault(one, set()).add(other)
    assert graph["router.dialects"] >= {"router.common", "router.core", "router.http"}
    assert graph["farm.worker"] >= {"farm.dialects", "farm.transports"}
    while free := [one for one, others in graph.items() if not others & graph.keys()]:
        for one in free:
            del graph[one]
    assert not graph


def test_modules_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for folder in ("router", "farm", "bench"):
        for module, name in edges(folder):
            graph.setdefault(module, set()).add(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports, those of type checkers too: {' <- '.join(error.args[1])}")


def test_what_dialects_are_made_of_is_imported_from_one_place() -> None:
    found = {who for who, whom in edges("farm") if is_in(whom, "farm.interface") and not is_in(who, "farm.interface")}
    assert found == {"farm.dialects"}


@pytest.mark.parametrize("name", [side.spec.name for side in sides()])
def test_a_device_side_loads_nothing_of_the_routers(name: str) -> None:
    code = f"import farm.dialects.{name}, sys; print(*(m for m in sys.modules if m.startswith({ROUTER_SIDE!r})))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.split() == []


def test_device_sides_import_of_their_app_server_side_what_is_pure() -> None:
    for side in sides():
        name = side.spec.name
        package = f"router.dialects.{name}"
        (path,) = [p for p in (ROOT / "farm" / "dialects").glob(f"{name}*") if p.stem == name]
        for one in [path] if path.is_file() else path.rglob("*.py"):
            for whom in imported(one):
                assert not is_in(whom, "router.dialects") or is_in(whom, package) or whom == "router.dialects"
                assert whom not in (f"{package}.app_server", f"{package}.admin")
