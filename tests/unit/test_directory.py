"""Where routers are, as the supervisor writes it and others read it; and which of two placements counts."""

from __future__ import annotations

import itertools
import resource
from pathlib import Path

import pytest

from router.common import directory
from router.common.directory import Directory, HostRow, Placement, Placements, Reader


def placed(number: int, epoch: int, host: str = "a") -> Placement:
    return Placement(number, epoch, host, f"{host}:7400", f"{host}:7401", "key")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert directory.read(tmp_path) is None
    one = Directory("a", [placed(0, 2**60), placed(3, 5, "b")], [HostRow("a", "first", 2), HostRow("b", "", 0)])
    directory.write(tmp_path, one)
    assert directory.read(tmp_path) == one
    assert [path.name for path in tmp_path.iterdir()] == [directory.FILE]
    assert (tmp_path / directory.FILE).stat().st_mode & 0o077 == 0


def test_a_draft_that_was_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "cluster.json.new").write_text("half")
    directory.write(tmp_path, Directory("a", [], []))
    assert directory.read(tmp_path) == Directory("a", [], [])


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[]", b'{"host":"a"}', b'{"host":1,"placements":[],"hosts":[]}'])
def test_one_that_is_damaged_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / directory.FILE).write_bytes(text)
    assert directory.read(tmp_path) is None


def test_what_a_later_release_adds_is_passed_over(tmp_path: Path) -> None:
    text = b'{"host":"a","placements":[],"hosts":[{"id":"b","name":"n","workers":1,"more":2}],"more":[]}'
    (tmp_path / directory.FILE).write_bytes(text)
    assert directory.read(tmp_path) == Directory("a", [], [HostRow("b", "n", 1)])


def test_it_is_read_when_it_has_changed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert reader.look() is None
    for host in ("a", "b"):
        directory.write(tmp_path, Directory(host, [], []))
        assert reader.look() == Directory(host, [], [])
        assert reader.look() is None
    (tmp_path / directory.FILE).unlink()
    assert reader.look() is None


def test_one_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    directory.write(tmp_path, Directory("a", [], []))
    reader = Reader(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert reader.look() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert reader.look() == Directory("a", [], [])


def test_the_highest_epoch_counts_in_whatever_order() -> None:
    moves = [placed(1, 7, "a"), placed(1, 8, "b"), placed(1, 9, "a"), placed(2, 3, "b")]
    for order in itertools.permutations(moves):
        known = Placements()
        for one in order:
            known.merge([one])
        assert known.by_number == {1: moves[2], 2: moves[3]}


def test_only_what_is_newer_is_a_change() -> None:
    known = Placements()
    assert known.merge([placed(1, 7), placed(1, 8, "b"), placed(2, 1)]) == [placed(1, 8, "b"), placed(2, 1)]
    assert known.merge([placed(1, 8, "c"), placed(1, 7), placed(2, 2)]) == [placed(2, 2)]
    assert known.merge([]) == []
