"""What commands show on terminals of several widths."""

from __future__ import annotations

import pytest

from farm.cli import report
from farm.doctor import Check

CHECKS = [
    Check("net.ipv4.tcp_rmem", "ok", "131,072 bytes", "at most 131,072 bytes to begin with: a slow device may fill it"),
    Check("memory", "fail", "1.0 GiB [available]", "", remedy="a line to be copied, which is not broken: " + "x" * 60),
]


@pytest.mark.parametrize(("columns", "table"), [("80", False), ("40", False), ("160", True)])
def test_checks(columns: str, table: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    report.print_checks(CHECKS)
    *rows, remedy, last = capsys.readouterr().out.splitlines()
    assert any("┃" in row for row in rows) is table
    assert all(len(row) <= int(columns) for row in rows)
    text = " ".join(" ".join(rows).split())
    assert "net.ipv4.tcp_rmem" in text and "[available]" in text
    if not table:
        assert "131,072 bytes; needed: at most 131,072 bytes to begin with: a slow device may fill it" in text
    assert remedy == f"fail  memory: {CHECKS[1].remedy}"
    assert last == "1 ok, 0 warn, 1 fail"
