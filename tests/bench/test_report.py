"""Results of the bench as documents, tables, terminal and Markdown."""

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.bench import COMMANDS_RECORDED, changed, recorded_result

from bench.errors import BenchError
from bench.figures import results
from bench.figures.results import COMMANDS, document, read, shown
from bench.figures.tables import Table
from bench.render import html, markdown, terminal
from bench.render.columns import text_columns
from router.common.interpreter import interpreter


def on_terminal(body: dict[str, Any], width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    terminal.show(console, body, shown(body))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def as_markdown(body: dict[str, Any]) -> str:
    found = shown(body)
    return markdown.page(body, found, [(chart, "x.png") for chart in found.charts])


def as_html(body: dict[str, Any]) -> str:
    return html.page("results", [html.Entry("run", body, shown(body))], [])


def figures_of(body: dict[str, Any]) -> list[str]:
    """What a reader looks for, taken from the document itself."""
    if body["command"] == "connect":
        done = body["connect"]
        return [
            f"{done['setup']['ready']:,}",
            f"{done['setup']['rate']:,.0f}",
            f"{done['user_memory']['workers']['a_connection'] / 1024:.2f} KiB",
            f"{done['user_memory']['router']['a_connection'] / 1024:.2f} KiB",
            f"{body['baseline']['user_memory_a_connection'] / 1024:.2f} KiB",
            f"{done['push']['to_frame_ms']['p99']:.2f} ms",
            f"{done['gc_pause_max_ms']:.2f} ms",
        ]
    if body["command"] == "push":
        runs = body["runs"]
        found = [f"{run['notifications_a_second']:,.0f}" for run in runs]
        found += [f"{run['to_frame_ms'][point]:.2f} ms" for run in runs for point in ("p50", "p99.9", "max")]
        return [*found, f"{runs[0]['statuses']['202']:,}", f"{body['away']['arrived']:,}"]
    row = body["profiles"][0]
    return [f"{row['ceiling']:,}", row["limit"]["kind"], f"{row['ramp']['connection']['all'] / 1024:.2f} KiB"]


SLOW = {"implementation": "CPython", "version": "3.12.1", "pgo": "no", "lto": "no"}
FAST = SLOW | {"pgo": "yes", "lto": "yes"}


def test_a_document_says_where_it_comes_from() -> None:
    body = document("push", {"a": 1}, {"statuses": {200: 3}, "share": float("nan")}, interrupted=True)
    assert body == json.loads(json.dumps(body)) == results.checked(body)
    assert body["statuses"] == {"200": 3} and body["share"] is None and body["interrupted"]
    assert body["machine"]["kernel"] and body["machine"]["sysctl"].keys() >= {"fs/file-max", "net/core/somaxconn"}
    assert body["machine"]["interpreter"] == interpreter().fields()
    assert re.fullmatch(r"[0-9a-f]{7,}( with changes)?|version .+", body["commit"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ("NaN", "NaN is no JSON"),
        ("[" * 100_000, "not JSON"),
        (json.dumps(changed(command=...)), "the field 'command' is missing"),
        (json.dumps(changed(command="fly")), "the field 'command' is 'fly', expected one of"),
        (json.dumps(changed(interrupted=0)), "the field 'interrupted' is no true or false"),
        (json.dumps(changed(when="yesterday")), "the field 'when' is no time"),
        (json.dumps(changed(when="2026-01-01T00:00:00")), "a time without a zone"),
        (json.dumps(changed(machine={})), "the field 'machine.kernel' is missing"),
        (json.dumps(changed(commit=7)), "the field 'commit' is no text"),
    ],
)
def test_a_bad_file_is_named_with_the_field(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(BenchError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and reason in message and "\n" not in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"none\.json: No such file"):
        read(tmp_path / "none.json")


def test_a_document_without_what_its_command_writes_is_named() -> None:
    with pytest.raises(BenchError, match="'connect' without the field 'connect'"):
        shown(changed(connect=...))
    with pytest.raises(BenchError, match="'connect' that can't be shown"):
        shown(changed(connect=[]))


def test_every_command_of_the_registry_that_has_a_view_can_be_imported() -> None:
    views = {path.stem for path in (Path(results.__file__).parent / "views").glob("*.py")} - {"__init__", "parts"}
    assert views <= set(COMMANDS)
    for name in views:
        with pytest.raises(BenchError):  # the view is there, and the document has nothing for it
            shown(changed(command=name, connect=...))


@pytest.mark.parametrize("name", COMMANDS_RECORDED)
def test_terminal_markdown_and_html_have_the_figures_of_the_document(name: str) -> None:
    body = recorded_result(name)
    wanted = figures_of(body)
    assert len(wanted) >= 3
    drawn = (on_terminal(body), as_markdown(body), as_html(body))
    for text in drawn:
        assert [figure for figure in wanted if figure not in text] == []
        assert body["machine"]["kernel"] in text and body["machine"]["python"] in text
        assert body["commit"].split()[0] in text


@pytest.mark.parametrize(
    ("ours", "of_the_farm", "named"),
    [
        (SLOW, {}, "CPython 3.12.1 (PGO no, LTO no)"),
        (FAST, {}, "CPython 3.12.1 (PGO yes, LTO yes)"),
        (FAST, {"python": SLOW}, "CPython 3.12.1 (PGO no, LTO no)"),  # of a farm that ran already
    ],
)
def test_the_interpreter_is_shown_and_a_slow_one_warned_of(
    ours: dict[str, str], of_the_farm: dict[str, Any], named: str
) -> None:
    body = recorded_result("push")
    body["machine"]["interpreter"] = ours
    body["farm"] = body.get("farm", {}) | of_the_farm
    for text in (on_terminal(body), as_markdown(body), as_html(body)):
        assert named in text
        assert ("without PGO and LTO" in text) == ("PGO no" in named)


def test_failures_and_an_interruption_are_shown() -> None:
    body = recorded_result("connect")
    body["interrupted"] = True
    body["connect"]["setup"] |= {"ready": 0, "wanted": 12, "failures": {"upgrade: HTTP 503": 7}, "time_ms": {}}
    body["connect"]["drops"] = {"upgrade: HTTP 503": 5}
    del body["baseline"]
    printed = on_terminal(body)
    assert "0 of 12" in printed and re.search(r"upgrade: HTTP 503 +│ +12", printed)
    assert "trio-websocket" not in printed
    for text in (printed, as_markdown(body), as_html(body)):
        assert "nterrupted: these are the figures until then" in text


def test_what_a_server_answered_is_text_and_nothing_else() -> None:
    body = recorded_result("push")
    evil = "<script>alert(1)</script> [red]|*a*`"
    body["setup"]["failures"] = {evil: 3}
    assert evil in on_terminal(body)
    assert r"\<script\>alert(1)\</script\> \[red\]\|\*a\*\`" in as_markdown(body)
    page = as_html(body)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_markdown_tables_are_rectangular() -> None:
    for name in COMMANDS_RECORDED:
        lines = as_markdown(recorded_result(name)).splitlines()
        blocks = re.findall(r"(?:^\|.*\n)+", "\n".join(lines) + "\n", re.MULTILINE)
        assert len(blocks) >= 2
        for block in blocks:
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(counts) == 1, block
            assert set(block.splitlines()[1]) <= set("|-:")


def test_columns_of_words_and_of_figures() -> None:
    table = Table("t", ["figures", "words", "empty"])
    table.row("a", "12", "none of them")
    table.row("b", "-", "the machine")
    table.row("c", "$3", "assumed")
    table.row("limit", "the router was busy", "x")
    assert text_columns(table) == {0, 2}


def test_what_is_drawn_does_not_change_the_document() -> None:
    for name in COMMANDS_RECORDED:
        body = recorded_result(name)
        before = copy.deepcopy(body)
        on_terminal(body), as_markdown(body), as_html(body)
        assert body == before


@pytest.mark.parametrize(("cores", "marked"), [(0.19, False), (0.7, True)])
def test_a_run_on_a_busy_machine_is_marked_wherever_it_is_shown(cores: float, marked: bool) -> None:
    body = recorded_result("connect")
    body["machine"]["cores"] = 2
    for usage in (body["connect"]["usage"], body["connect"]["push"]["usage"]):
        usage["cores_with_others"] = cores
    found = shown(body)
    entry = html.Entry("one", body, found)
    text = "Busy machine: other processes had up to 0.7 of its 2 cores"
    page = html.page("All", [entry], [])
    assert ("busy machine</span>" in page, text in page, text in markdown.page(body, found, [])) == (marked,) * 3
    assert (text in " ".join(on_terminal(body, 200).split())) == marked


@pytest.mark.parametrize("name", COMMANDS_RECORDED)
def test_tables_on_a_terminal_fit_80_columns_and_cut_no_word(name: str) -> None:
    body = recorded_result(name)
    lines = on_terminal(body, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    for table in shown(body).tables:
        for row in table.rows:
            for word in " ".join(row).split():
                assert any(word in line for line in lines), word
