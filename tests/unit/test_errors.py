"""The tables of close codes and error answers hold what the code sends, and metrics that there are."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest
from support.sources import ROOT, tree

from farm.dialects import specs
from router.common import close_codes, refusals
from router.common.answers import Answer, CloseCode, Table
from router.dialects import all_metrics

HOUSE: Final = (close_codes.TABLE, refusals.DEVICE_PORT, refusals.ROUTER_PORT, refusals.LINK)
TABLES: Final = [*HOUSE, *(table for spec in specs() for table in spec.answers)]


def nodes(place: str) -> Iterator[ast.AST]:
    """Of the code in a folder or a file."""
    path = ROOT / place
    for file in [path] if path.is_file() else path.rglob("*.py"):
        yield from ast.walk(tree(file))


PORTS: Final = {
    "farm/worker": refusals.DEVICE_PORT,
    "farm/transports": refusals.DEVICE_PORT,
    "router/http": refusals.ROUTER_PORT,
    "router/state.py": refusals.ROUTER_PORT,
    "router/common/http_head.py": refusals.ROUTER_PORT,
}


REFUSING: Final = {"HeadError", "give_up", "refusal", "rejection", "Refusal", "Response"}


def test_the_ports_refuse_with_rows_of_their_tables() -> None:
    """And none of the rows is left unused."""
    rows = {name: row for name, row in vars(refusals).items() if isinstance(row, Answer)}
    used: set[str] = set()
    for place, table in PORTS.items():
        statuses = {row.status for row in table.rows if isinstance(row, Answer)}
        for node in nodes(place):
            if isinstance(node, ast.Name) and node.id in rows:
                assert rows[node.id].status in statuses
                used.add(node.id)
            if isinstance(node, ast.Call) and node.args and isinstance(first := node.args[0], ast.Constant):
                name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
                assert name not in REFUSING or not isinstance(first.value, int) or first.value < 400, place
    assert used == set(rows)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_rows_are_complete(table: Table) -> None:
    metrics = {metric.name for metric in all_metrics(specs())[table.side == "worker"]}
    assert table.rows
    for row in table.rows:
        assert row.client.endswith(".")
        assert not row.metric or row.metric in metrics
        if isinstance(row, CloseCode):
            assert 1000 <= row < 5000
            assert row.text or row == 1005  # nothing is sent


def test_a_close_code_is_a_number_that_knows_what_it_means() -> None:
    code = CloseCode(4000, "gone", "Goes.", "timeouts")
    assert (code, f"{code}", b"%d" % code, code + 0) == (4000, "4000", b"4000", 4000)
    assert (code.text, code.client, code.metric) == ("gone", "Goes.", "timeouts")


def test_no_row_of_a_dialect_is_left_unused() -> None:
    """Each is named by the code of the dialect beside the table that lists it."""
    for spec in specs():
        own = [path for side in ("router", "farm") for path in (ROOT / side / "dialects").rglob("*.py")]
        own = [path for path in own if spec.name in path.relative_to(ROOT).as_posix()]
        names = Counter(
            one.id if isinstance(one, ast.Name) else one.attr
            for path in own
            for one in ast.walk(tree(path))
            if isinstance(one, ast.Name | ast.Attribute)
        )
        (protocol,) = [path for path in own if path.name == "protocol.py"] or [None]
        if protocol is None:
            assert not spec.answers
            continue
        for node in tree(protocol).body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Call):
                continue
            made = getattr(node.value.func, "id", "")
            if made in ("CloseCode", "Answer"):
                assert isinstance(node.target, ast.Name)
                assert names[node.target.id] > 2, f"{spec.name}: {node.target.id}"
