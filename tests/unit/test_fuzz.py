"""A little of `make fuzz` for every target: what was kept of long runs, and some new inputs; and the fuzzer itself."""

from __future__ import annotations

import logging
import random
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import engine
from fuzz.engine import Fuzzer, Target, read_corpus, replace_corpus, write
from fuzz.structures import ODD, changed
from fuzz.targets import TARGETS
from support.often import often

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
INPUTS = often(50)
AT_MOST_S = often(1) * 0.4
MOST_KEPT = 200_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is refused is logged, and there is much of that here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_promise_is_broken(name: str) -> None:
    fuzzer = Fuzzer(TARGETS[name], seed=1, corpus=read_corpus(CORPUS / name))
    fuzzer.fuzz(AT_MOST_S, INPUTS)
    assert not fuzzer.crashes, "\n".join(crash.describe() for crash in fuzzer.crashes.values())
    assert fuzzer.seen


def test_the_corpus_is_small_and_of_targets_that_there_are() -> None:
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MOST_KEPT
    assert {file.parent.name for file in files} <= set(TARGETS)


# ---------------------------------------------------------------------- the fuzzer itself


def planted() -> types.ModuleType:
    """A module with a fault behind four conditions."""
    module = types.ModuleType("planted")
    module.__file__ = "planted.py"
    lines = ["def run(data):"]
    for depth, byte in enumerate(b"bug!"):
        lines.append("    " * (depth + 1) + f"if len(data) > {depth} and data[{depth}] == {byte}:")
    lines.append("    " * 5 + "raise RuntimeError('found')")
    exec(compile("\n".join(lines), "planted.py", "exec"), module.__dict__)
    return module


def test_it_finds_what_is_behind_several_conditions_and_makes_it_short() -> None:
    module = planted()
    fuzzer = Fuzzer(
        Target("planted", module.run, (module,), (b"some text",), words=(b"b", b"u", b"g", b"!")), seed=1, corpus=()
    )
    fuzzer.fuzz(60.0, 20_000)
    (crash,) = fuzzer.crashes.values()
    assert crash.data == b"bug!"
    assert "RuntimeError: found" in crash.describe()


def test_what_takes_for_ever_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(data: bytes) -> None:
        while data:
            pass

    monkeypatch.setattr(engine, "HANGS_S", 0.05)
    target = Target("hang", run, (), ())
    assert engine.attempt(target, b"") is None
    crash = engine.attempt(target, b"x")
    assert crash is not None
    assert isinstance(crash.error, engine.Hang)


def test_a_corpus_is_replaced_but_for_its_crashes(tmp_path: Path) -> None:
    replace_corpus(tmp_path, [b"one", b"two"])
    write(tmp_path, "crash-", b"three")
    assert sorted(read_corpus(tmp_path)) == [b"one", b"three", b"two"]
    replace_corpus(tmp_path, [b"four"])
    assert sorted(read_corpus(tmp_path)) == [b"four", b"three"]


def test_changed_values_are_other_values_and_the_old_one_stays() -> None:
    chance = random.Random(1)
    value = {"a": [1, {"b": "text"}], "c": None}
    found = {repr(changed(chance, value)) for _ in range(300)}
    assert len(found) > 100
    assert value == {"a": [1, {"b": "text"}], "c": None}
    assert ODD
