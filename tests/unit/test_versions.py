"""What the status says where the processes of a farm run several versions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from farm.cli import report
from farm.supervisor.versions import version_note

RESTART = "restart (farm drain, then farm start)"


@pytest.mark.parametrize(
    ("routers", "workers", "note"),
    [
        (["1.0.0"], ["1.0.0", "1.0.0"], None),
        ([], [], None),
        (["", ""], ["1.0.0", ""], None),
        (["1.0.1"], ["1.0.1"], f"routers 1.0.1, workers 1.0.1: {RESTART} to run the supervisor at 1.0.1 too"),
        ([], ["1.0.1", ""], f"workers 1.0.1: {RESTART} to run the supervisor at 1.0.1 too"),
        (
            ["1.0.0"],
            ["1.0.1", "1.0.0"],
            "routers 1.0.0, workers 1.0.0 and 1.0.1: farm reload makes routers and workers alike, "
            f"a {RESTART} the supervisor too",
        ),
    ],
)
def test_a_note_where_they_differ(routers: Sequence[str], workers: Sequence[str], note: str | None) -> None:
    found = version_note("1.0.0", routers, workers, reloading=False)
    assert found == (None if note is None else f"supervisor 1.0.0, {note}")


def test_nothing_is_asked_of_an_operator_while_a_reload_is_under_way() -> None:
    found = version_note("1.0.0", ["1.0.0"], ["1.0.1", "1.0.0"], reloading=True)
    assert found == "supervisor 1.0.0, routers 1.0.0, workers 1.0.0 and 1.0.1: a reload is under way"


def test_the_status_has_a_line_and_a_column_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    note = version_note("1.0.0", ["1.0.1"], ["1.0.1"], reloading=False)
    rows = {"routers": [{"number": 0, "version": "1.0.1"}], "workers": [{"shard": 0}]}
    report.print_status({"version": "1.0.0", "version_note": note, **rows})
    first, second, *table = capsys.readouterr().out.splitlines()
    assert (first, second) == ("farm: version 1.0.0", f"versions: {note}")
    assert [row.split("│")[2].strip() for row in table if "│" in row] == ["1.0.1", "-"]
    report.print_status({"version": "1.0.0", "version_note": None, **rows})
    assert "version" not in capsys.readouterr().out.replace("farm: version 1.0.0", "")
