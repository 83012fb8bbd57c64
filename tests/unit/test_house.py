"""How the house is laid out: what may import what, and how long a file of tests may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from support import dialects
from support.dialect_files import is_of
from support.sources import ROOT, imports

TESTS: Final = sorted((ROOT / "tests").rglob("*.py"))
DIALECTS: Final = dialects.names()
MAX_LINES: Final = 500
SERVERS: Final = (
    *("support.memcached", "support.redis_cluster", "support.redis_sentinels", "support.redis_servers"),
    *(f"support.stores.{name}" for name in ("in_store", "new_store", "store_settings")),
)
"""What starts a server of a store."""


@cache
def imported(file: Path, *, at_once: bool = False) -> tuple[str, ...]:
    """The full names of all modules that a file imports, anywhere in it; of `from a import b` both a and a.b. at_once:
    as `imports` has it."""
    return tuple(_names(file, at_once))


def _names(file: Path, at_once: bool) -> Iterator[str]:
    for node in imports(file, at_once=at_once):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        else:
            assert node.level == 0, f"{file} imports relatively"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def of_package(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def is_ours(module: str) -> bool:
    """Whether it is a module or package of the project; what `from a import b` brings is perhaps a function."""
    path = module.replace(".", "/")
    return any((root / f"{path}.py").exists() or (root / path).is_dir() for root in (ROOT, ROOT / "tests"))


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_a_file_of_tests_has_at_most_500_lines() -> None:
    lines = {file.name: len(file.read_text().splitlines()) for file in TESTS}
    assert not {name: count for name, count in lines.items() if count > MAX_LINES}


def test_each_test_module_has_a_name_of_its_own() -> None:
    """pytest imports them by it."""
    names = [file.name for file in TESTS if file.name.startswith("test_")]
    assert not {name for name in names if names.count(name) > 1}


def test_no_test_module_imports_another() -> None:
    modules = {file.stem for file in TESTS if file.name.startswith("test_")}
    found = {(file.name, name) for file in TESTS for name in imported(file) if modules & set(name.split(".")[:-1])}
    found |= {(file.name, name) for file in TESTS for name in imported(file) if name in modules}
    assert not found


def test_what_starts_a_server_of_a_store_is_no_unit_test() -> None:
    assert not {
        (file.name, name)
        for file in TESTS
        if file.parent.name == "unit"
        for name in imported(file)
        if is_in(name, *SERVERS)
    }
    assert any(is_in(name, *SERVERS) for file in TESTS if file.parent.name == "stores" for name in imported(file))


def test_the_router_imports_nothing_of_farm_and_bench() -> None:
    assert not [
        (file, name) for file in of_package("router") for name in imported(file) if is_in(name, "farm", "bench")
    ]


def test_a_farm_imports_the_bench_only_for_its_command() -> None:
    found = {file for file in of_package("farm") for name in imported(file) if is_in(name, "bench")}
    assert found == {ROOT / "farm" / "cli" / "commands" / "bench.py"}


def test_the_bench_imports_of_a_farm_only_what_is_common() -> None:
    ours = [(file, name) for file in of_package("bench") for name in imported(file) if is_in(name, "farm", "router")]
    assert not [(file, name) for file, name in ours if not is_in(name, "router.common") and name != "router"]


def test_what_imports_a_dialect_goes_with_it() -> None:
    """By its name, or the dialect could not be deleted. The torture imports those that it is asked to speak, later."""
    found = set()
    for file in (*TESTS, *of_package("bench")):
        path = file.relative_to(ROOT).as_posix()
        ours = {dialect for dialect in DIALECTS if is_of(path, dialect)}
        for name in imported(file, at_once=file.parent.name == "torture"):
            if any(is_of(name, dialect) for dialect in DIALECTS if dialect not in ours) and is_ours(name):
                found.add((path, name))
    assert not found
