"""A redistribution that ends anywhere leaves the old files or the new ones, whole, and the next start goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.killing import killed_at
from support.redistribution import content, fill, redistribute, rows, settings

from router.store import layout
from router.store.base import StoreError
from router.store.registry import preparation

ROUNDS: Final = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def routers(data: Path) -> int:
    found = layout.read(data)
    assert found is not None
    return found.routers


def test_killed_before_any_of_its_file_operations_it_leaves_one_layout_whole(data: Path) -> None:
    keys = fill(data, 1, 11, number=40)
    before, all_rows = content(data, 1, keys), rows(data)
    left_by = set()
    for old, new, step in ((1, 2, 1), (2, 1, 3)):
        operation = 0
        while (code := killed_at(operation, lambda new=new: redistribute(data, new))) != 0:
            assert code == -signal.SIGKILL
            there = routers(data)
            left_by.add((there, operation))
            assert rows(data) == all_rows, operation
            if there == new:  # what is left to do is to delete the old files: from the old ones on again
                redistribute(data, new)
                assert content(data, new, keys) == before
                redistribute(data, old)
            operation += step
        assert content(data, new, keys) == before
        assert {there for there, _ in left_by} == {old, new}
        assert operation > 20
        left_by.clear()


def test_killed_at_any_moment_and_started_with_any_number_it_loses_nothing(data: Path) -> None:
    chance = random.Random(12)
    keys = fill(data, 1, 12)
    before, all_rows = content(data, 1, keys), rows(data)
    redistribute(data, 2)
    began = time.monotonic()
    redistribute(data, 3)
    usual = time.monotonic() - began
    outcomes = set()
    for _ in range(ROUNDS):
        wanted = chance.choice((1, 2, 3, 4))
        pid = os.fork()
        if not pid:
            try:
                redistribute(data, wanted)
            finally:
                os._exit(0)
        time.sleep(chance.random() * usual)
        os.kill(pid, signal.SIGKILL)
        outcomes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        assert rows(data) == all_rows
        assert content(data, routers(data), keys) == before
    assert -signal.SIGKILL in outcomes
    redistribute(data, 2)
    assert content(data, 2, keys) == before
    assert sorted(path.name for path in data.iterdir()) == sorted(
        path.name
        for path in (data / "store.layout", data / layout.read(data).name, *data.glob("*.lock"))  # type: ignore[union-attr]
    )


@pytest.fixture
def interrupted(data: Path) -> Iterator[tuple[Path, list[bytes], dict[str, Any]]]:
    """A store whose redistribution was killed before its manifest was renamed."""
    keys = fill(data, 1, 13, number=40)
    before = content(data, 1, keys)
    operation = 0
    while not (data / "store-1" / "router-2.sqlite3").exists():
        assert killed_at(operation, lambda: redistribute(data, 3)) == -signal.SIGKILL
        operation += 1
    yield data, keys, before


def test_a_start_with_the_old_number_after_an_interrupted_one_goes_on_and_tidies_up(
    interrupted: tuple[Path, list[bytes], dict[str, Any]],
) -> None:
    data, keys, before = interrupted
    redistribute(data, 1)
    assert not (data / "store-1").exists()
    assert content(data, 1, keys) == before


def test_what_an_interrupted_start_left_is_not_taken_for_a_store_and_what_is_not_ours_stays(
    interrupted: tuple[Path, list[bytes], dict[str, Any]],
) -> None:
    data, keys, before = interrupted
    (data / "store-1" / "notes.txt").write_text("of an operator")
    with pytest.raises(StoreError, match="what was left there cannot be deleted"):
        redistribute(data, 2)
    assert content(data, 1, keys) == before
    redistribute(data, 1)
    assert (data / "store-1" / "notes.txt").exists()
    (data / "store-1" / "notes.txt").unlink()
    redistribute(data, 2)
    assert content(data, 2, keys) == before
    assert preparation(settings(data, 2)) is None
