"""What stores can do, what dialects need of them, and the line by which one that is not enough is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from support.stores import NOW, A, item, puts, store_settings, with_store

from farm.cli import run
from farm.dialects import specs
from router.common import store_kinds
from router.common.store_kinds import KINDS, NAMES, Shape, StoreKind, refusal
from router.store.base import Reads, Store
from router.store.registry import keeps_something, look_over, open_store

NARROW = StoreKind("narrow", "for SimplePush alone", "nowhere", frozenset((Shape.INBOX, Shape.TABLE)))
BROAD = StoreKind("broad", "for all", "nowhere", frozenset(Shape))


def test_a_dialect_that_needs_more_is_refused_in_one_line_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_kinds, "KINDS", (NARROW, BROAD))
    assert refusal("news", {Shape.INBOX, Shape.LOG, Shape.SETS}, "narrow") == (
        "dialects.news needs a store with logs of channels, sets of IDs, and narrow has none; "
        "choose store.kind = broad, or turn dialects.news off"
    )
    monkeypatch.setattr(store_kinds, "KINDS", (NARROW,))
    assert refusal("news", {Shape.LOG}, "narrow").endswith("and narrow has none; turn dialects.news off")


@pytest.mark.parametrize("needs", [set(), {Shape.INBOX}, {Shape.INBOX, Shape.TABLE}])
def test_one_that_needs_no_more_is_not(monkeypatch: pytest.MonkeyPatch, needs: set[Shape]) -> None:
    monkeypatch.setattr(store_kinds, "KINDS", (NARROW, BROAD))
    assert refusal("news", needs, "narrow") == ""


def test_a_farm_whose_dialects_need_more_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {spec.name for spec in specs() if spec.needs and spec.on}
    # The stores of today can do everything, so one of them is taken what the dialects need.
    nothing = StoreKind("memory", "", "router.store.memory", frozenset())
    monkeypatch.setattr(store_kinds, "KINDS", (KINDS[0], nothing))
    outcome = run(["check-config", "--data", str(tmp_path), "--set", "store.kind=memory"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "needs a store with" in line]
    assert outcome == (2 if wanted else 0)
    assert len(lines) == len(wanted)
    assert all(any(f"dialects.{name} needs" in line and "memory has none" in line for line in lines) for name in wanted)
    assert run(["check-config", "--data", str(tmp_path), "--set", "store.kind=sqlite"]) == 0


@pytest.mark.parametrize("kind", NAMES)
def test_every_kind_opens_and_says_what_it_keeps(kind: str, tmp_path: Path) -> None:
    settings = store_settings(kind, tmp_path)
    assert keeps_something(settings) is None

    async def write(store: Store) -> None:
        assert store.promise
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)

    trio.run(with_store, open_store(settings), write)
    open_store(settings).check()
    assert (keeps_something(settings) is None) == (kind == "memory")
    assert all(found.status != "fail" for found in look_over(settings))


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)
def test_every_dialect_finds_a_store(spec: object) -> None:
    needs = getattr(spec, "needs", frozenset())
    assert any(needs <= kind.can for kind in KINDS)
