"""What the bench knows of a dialect stands in its file of `bench.load.protocols`, and is found by being there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
import bench.load.dialect
from bench.load.protocols import DIALECTS, FAN_OUTS, PROTOCOLS, REFERENCE, WIRES

BENCH = Path(bench.__file__).parent
OWN = BENCH / "load" / "protocols"
NAMES = sorted({*DIALECTS, *FAN_OUTS})


def mentions(file: Path) -> Iterator[str]:
    """The texts and the imported modules of a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_in_the_bench_names_a_dialect(name: str) -> None:
    others = [file for file in BENCH.rglob("*.py") if file != OWN / f"{name}.py"]
    assert len(others) > 50
    for file in others:
        found = [text for text in mentions(file) if text == name or name in text.split(".")]
        assert not found, f"{file}: {found}"


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_a_dialect_has_all_that_a_run_needs(dialect: bench.load.dialect.Dialect) -> None:
    assert dialect.name in PROTOCOLS and dialect.wire in WIRES
    assert not dialect.batch_wire or dialect.batch_wire in WIRES
    assert all((dialect.title, dialect.set_up, dialect.push, dialect.most_payload, dialect.ping_setting))


@pytest.mark.parametrize("fan_out", FAN_OUTS.values(), ids=lambda fan_out: fan_out.name)
def test_a_fan_out_has_all_that_a_run_needs(fan_out: bench.load.dialect.FanOut, tmp_path: Path) -> None:
    assert fan_out.name in PROTOCOLS and fan_out.wire in WIRES
    assert all("=" in setting for setting in fan_out.settings(tmp_path))
    assert "{channel}" in fan_out.events("news-").path


def test_the_reference_comes_first() -> None:
    assert sum(dialect.reference for dialect in DIALECTS.values()) <= 1
    assert not any(dialect.reference for dialect in list(DIALECTS.values())[1:])
    assert next(iter(DIALECTS.values())) is REFERENCE
