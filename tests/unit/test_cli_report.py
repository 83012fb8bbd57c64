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


def test_the_hosts_of_a_cluster_and_the_routers_that_do_not_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    hosts = [
        {"name": "a", "here": True, "routers": [0, 2], "workers": 2, "devices": 1234, "beat_age": 0.3, "fit": True},
        {"name": "b[1]", "routers": [], "workers": 2, "devices": 0, "beat_age": 0.3, "isolated": True},
    ]
    placements = [
        {"number": 0, "host": "a", "state": "ready"},
        {"number": 1, "host": None, "state": "nowhere"},
        {"number": 2, "host": "a", "state": "starting"},
    ]
    report.print_status({"routers": [], "workers": [], "cluster": {"hosts": hosts, "placements": placements}})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "│ a (here) │ 0 2 │ 2 │ 1,234 │ 0.3 s │ up │" in lines
    assert "│ b[1] │ │ 2 │ 0 │ 0.3 s │ cut off from the others │" in lines
    assert lines[-2:] == ["router 1: nowhere", "router 2: starting on a"]


@pytest.mark.parametrize(
    ("offset", "state"),
    [
        (0.02, "takes no routers: it starts, or its log says why"),
        (2.5, "takes no routers: its clock is 2.5 s off that of Redis"),
        (-2.5, "takes no routers: its clock is 2.5 s off that of Redis"),
        (None, "takes no routers: it starts, or its log says why"),
    ],
)
def test_why_a_host_takes_no_routers(
    offset: float | None, state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    host = {"name": "a", "routers": [], "workers": 2, "devices": 0, "beat_age": 0.3, "fit": False}
    report.print_status({"routers": [], "workers": [], "cluster": {"hosts": [host | {"clock_offset": offset}]}})
    assert state in capsys.readouterr().out


def test_the_replacement_of_a_worker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    last = {
        "number": 1,
        "action": "drain",
        "worker": 0,
        "when": "2026-01-01T00:00:00Z",
        "outcome": "running",
        "why": "",
    }
    found = last | {"step": "letting its devices go", "left": 1234}
    report.print_status({"routers": [], "workers": [], "last_replacement": found})
    text = " ".join(capsys.readouterr().out.split())
    assert "last replacement: action drain, worker 0, outcome running, step letting its devices go, left 1,234" in text
