"""What the bench writes and shows, on recorded results: documents, tables, Markdown, pictures, the HTML page."""

import base64
import copy
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from matplotlib.image import imread
from rich.console import Console

from bench.cli import main
from bench.commands.common import perform
from bench.errors import BenchError
from bench.figures import results
from bench.figures.json_text import rounded
from bench.figures.results import COMMANDS, document, read, shown
from bench.figures.tables import Chart, Series, Table
from bench.render import html, markdown, pictures, terminal
from bench.render.columns import text_columns
from router.common.interpreter import interpreter

RECORDED = Path(__file__).parents[1] / "data" / "bench"
COMMANDS_RECORDED = ("connect", "push", "instances")
VOID = {"meta", "img", "br", "hr", "input", "link"}


def recorded(name: str) -> dict[str, Any]:
    return read(RECORDED / f"{name}.json")


def on_terminal(body: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=160)
    terminal.show(console, body, shown(body))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def as_markdown(body: dict[str, Any]) -> str:
    found = shown(body)
    return markdown.page(body, found, [(chart, "x.png") for chart in found.charts])


def as_html(body: dict[str, Any]) -> str:
    return html.page("results", [html.Entry("run", body, shown(body))], [])


# ---- documents


def test_a_document_says_where_it_comes_from() -> None:
    body = document("push", {"a": 1}, {"statuses": {200: 3}, "share": float("nan")}, interrupted=True)
    assert body == json.loads(json.dumps(body)) == results.checked(body)
    assert body["statuses"] == {"200": 3} and body["share"] is None and body["interrupted"]
    assert body["machine"]["kernel"] and body["machine"]["sysctl"].keys() >= {"fs/file-max", "net/core/somaxconn"}
    assert body["machine"]["interpreter"] == interpreter().fields()
    assert re.fullmatch(r"[0-9a-f]{7,}( with changes)?|version .+", body["commit"])


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in (recorded("connect") | fields).items() if value is not ...}


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


# ---- tables, on the terminal and as Markdown


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


@pytest.mark.parametrize("name", COMMANDS_RECORDED)
def test_terminal_markdown_and_html_have_the_figures_of_the_document(name: str) -> None:
    body = recorded(name)
    wanted = figures_of(body)
    assert len(wanted) >= 3
    drawn = (on_terminal(body), as_markdown(body), as_html(body))
    for text in drawn:
        assert [figure for figure in wanted if figure not in text] == []
        assert body["machine"]["kernel"] in text and body["machine"]["python"] in text
        assert body["commit"].split()[0] in text


SLOW = {"implementation": "CPython", "version": "3.12.1", "pgo": "no", "lto": "no"}
FAST = SLOW | {"pgo": "yes", "lto": "yes"}


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
    body = recorded("push")
    body["machine"]["interpreter"] = ours
    body["farm"] = body.get("farm", {}) | of_the_farm
    for text in (on_terminal(body), as_markdown(body), as_html(body)):
        assert named in text
        assert ("without PGO and LTO" in text) == ("PGO no" in named)


def test_failures_and_an_interruption_are_shown() -> None:
    body = recorded("connect")
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
    body = recorded("push")
    evil = "<script>alert(1)</script> [red]|*a*`"
    body["setup"]["failures"] = {evil: 3}
    assert evil in on_terminal(body)
    assert r"\<script\>alert(1)\</script\> \[red\]\|\*a\*\`" in as_markdown(body)
    page = as_html(body)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_markdown_tables_are_rectangular() -> None:
    for name in COMMANDS_RECORDED:
        lines = as_markdown(recorded(name)).splitlines()
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


# ---- pictures


CHARTS = [
    Chart("Held, $ a month_x", "bar", "instance", "connections", log_y=True, note="A note. " * 30),
    Chart("Memory", "line", "connections", "MiB"),
    Chart("One bar", "bar", "", "ms"),
    Chart("Nothing at all", "line", "s", "ms", log_y=True),
]
CHARTS[0].series = [Series(f"series {n}", ["a", "b", "c"], [24_000 * n, None, 0]) for n in range(1, 12)]
CHARTS[1].series = [Series("gap", [0, 1, 2, 3], [1, None, 3, 4]), Series("long", list(range(9000)), [5.0] * 9000)]
CHARTS[2].series = [Series("s", ["a"], [0.5])]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)
def test_pictures_of_every_kind(chart: Chart) -> None:
    image = pictures.png(chart)
    assert image.startswith(b"\x89PNG\r\n\x1a\n") and len(image) < 150_000
    pixels = imread(io.BytesIO(image), format="png")
    height, width = pixels.shape[:2]
    assert width == 880 and 400 <= height <= 1000
    assert len({tuple(pixel) for row in pixels[::4, ::4] for pixel in row}) > 3  # something is drawn
    vector = pictures.svg(chart)
    assert vector == pictures.svg(chart) and len(vector) < 200_000
    root = ET.fromstring(vector)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in vector and b"<script" not in vector


@pytest.mark.parametrize("name", COMMANDS_RECORDED)
def test_pictures_of_recorded_results(name: str) -> None:
    charts = shown(recorded(name)).charts
    assert charts
    for chart in charts:
        assert chart.series and chart.y_label and chart.title
        assert imread(io.BytesIO(pictures.png(chart)), format="png").shape[1] == 880


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123, "0.123"),
        (12.34, "12.3"),
        (1234, "1,234"),
        (24_000, "24K"),
        (1_320_000, "1.32M"),
        (-20_000, "-20K"),
        (0, "0"),
    ],
)
def test_labels_are_short(value: float, text: str) -> None:
    assert pictures.label(value) == text


def test_no_part_of_the_farm_or_of_the_load_imports_matplotlib() -> None:
    processes = "farm.cli, farm.worker, router, bench.load.devices, bench.load.pushers"
    shown = "bench.cli, bench.figures.results, bench.views.connect"
    code = f"import sys\nimport {processes}, {shown}\nsys.exit('matplotlib' in sys.modules or 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr


# ---- the page


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps what the page refers to and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.values: list[str] = []
        self.styles: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.values += [value for _, value in attrs if value]
        self.references += [str(values[name]) for name in ("src", "href", "srcset", "data", "action") if name in values]
        if "id" in values:
            self.ids.append(str(values["id"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self.open[-1:] == ["style"] else self.words).append(data)


def folder_of_results(folder: Path) -> None:
    for day, name in enumerate(COMMANDS_RECORDED, 1):
        body = recorded(name) | {"when": f"2026-01-0{day}T12:00:00+00:00"}
        (folder / f"{name}.json").write_text(json.dumps(body))


def test_the_page_of_a_folder_stands_alone(tmp_path: Path) -> None:
    folder_of_results(tmp_path)
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    inside = [reference for reference in page.references if not reference.startswith("#")]
    assert inside and all(reference.startswith("data:image/svg+xml;base64,") for reference in inside)
    links = [reference[1:] for reference in page.references if reference.startswith("#")]
    assert links == page.ids == ["r1", "r2", "r3"]
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not [
        value for value in [*page.values, *page.styles] if "://" in value or "url(" in value or "@import" in value
    ]
    for reference in inside:
        picture = ET.fromstring(base64.b64decode(reference.partition(",")[2]))
        for element in picture.iter():
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith("#")
                assert "url(" not in value or "url(#" in value
    headings = re.findall(r"<h2>(\w+)</h2>", text)
    assert headings == ["instances", "push", "connect"]  # the newest first
    assert text.count("<img") == sum(len(shown(recorded(name)).charts) for name in COMMANDS_RECORDED)
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_bad_files_in_the_folder_are_named_and_left_out(tmp_path: Path) -> None:
    folder_of_results(tmp_path)
    (tmp_path / "<b>.json").write_text("{}")
    (tmp_path / "stale.json").write_text(json.dumps(changed(connect=...)))
    (tmp_path / "notes.txt").write_text("no result")
    output = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "left out: <b>.json: no result of the bench: the field 'command' is missing" in result.stderr
    assert "left out: stale.json: a result of 'connect' without the field 'connect'" in result.stderr
    assert "notes.txt" not in result.output
    page = Page(output.read_text())
    assert "b" not in page.tags and "<b>.json" in page.words
    assert len(page.ids) == 3


@pytest.mark.parametrize(
    ("files", "code", "text"),
    [
        ({}, 1, "no result files; make some with: farm bench connect --out"),
        ({"a.json": "{", "b.json": "{}"}, 1, "no result that can be shown: a.json: not JSON"),
        (None, 2, "does not exist"),
    ],
)
def test_a_folder_with_nothing_to_show(tmp_path: Path, files: dict[str, str] | None, code: int, text: str) -> None:
    folder = tmp_path / "results"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
    result = CliRunner().invoke(main, ["report", str(folder)])
    assert result.exit_code == code and text in result.output
    assert not (folder / "index.html").exists()


# ---- what a command writes


def perform_recorded(body: dict[str, Any], command: str = "connect", **output: str | bool) -> Any:
    """Run `perform` as a command would, with a recorded run in the place of a new one; returns click's result."""

    @click.command()
    def recorded_command() -> None:
        fields = {name: value for name, value in body.items() if name not in results.FIELDS and name != "commit"}
        perform(command, body["options"] | output, lambda interrupt, progress: fields)

    return CliRunner().invoke(recorded_command)


def test_a_command_writes_json_markdown_and_pictures(tmp_path: Path) -> None:
    body, folder = recorded("connect"), tmp_path / "a" / "results"
    (tmp_path / "a").mkdir()
    for old in ("run-9.png", "run-9.svg"):
        folder.mkdir(exist_ok=True)
        (folder / old).write_text("of an earlier run")
    file = tmp_path / "also.json"
    result = perform_recorded(body, json_file=str(file), out_folder=str(folder), out_name="run")
    assert result.exit_code == 0, result.output
    charts = len(shown(body).charts)
    pictures_of = {f"run-{number}.{kind}" for number in range(1, charts + 1) for kind in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == {"run.json", "run.md", *pictures_of}
    assert file.read_text() == (folder / "run.json").read_text()
    written = read(folder / "run.json")
    assert written["connect"] == rounded(body["connect"]) and "out_folder" not in written["options"]
    text = (folder / "run.md").read_text()
    assert set(re.findall(r"\]\((run-\d+\.png)\)", text)) == {name for name in pictures_of if name.endswith("png")}
    for name in pictures_of:
        data = (folder / name).read_bytes()
        if name.endswith("svg"):
            ET.fromstring(data)
        else:
            assert data.startswith(b"\x89PNG")
    assert "set-ups/s, middle half" in result.output


def test_pictures_are_left_out_where_they_are_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "run-1.png").write_text("of an earlier run")
    result = perform_recorded(recorded("connect"), out_folder=str(tmp_path), out_name="run", pictures=False)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "run.md"}
    assert "![" not in (tmp_path / "run.md").read_text()


def test_a_result_that_nothing_can_show_is_written_all_the_same(tmp_path: Path) -> None:
    body = recorded("connect")
    del body["connect"]["usage"]
    for command, reason in (("connect", "without the field 'usage'"), ("fly", "nothing that shows results of 'fly'")):
        result = perform_recorded(body, command, out_folder=str(tmp_path), json_file=str(tmp_path / "also.json"))
        assert result.exit_code == 1 and reason in result.stderr
        assert "Traceback" not in result.output
        for name in (f"{command}.json", "also.json"):
            assert json.loads((tmp_path / name).read_text())["connect"] == rounded(body["connect"])


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"out_folder": "{tmp}/file/x"}, "--out"),
        ({"json_file": "{tmp}/no/folder.json"}, "--json"),
        ({"out_folder": "{tmp}", "out_name": "../up"}, "--name ../up"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_known_before_the_run(
    tmp_path: Path, output: dict[str, str], text: str
) -> None:
    (tmp_path / "file").write_text("")

    @click.command()
    def never_runs() -> None:
        def run(interrupt: Any, progress: Any) -> dict[str, Any]:
            raise AssertionError

        perform("connect", {name: value.format(tmp=tmp_path) for name, value in output.items()}, run)

    result = CliRunner().invoke(never_runs)
    assert result.exit_code == 1 and text in result.output and "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    results.write_json(path, {"a": 1})
    results.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [item.name for item in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(BenchError, match="--json"):
        results.write_json(tmp_path, {"a": 3})


def test_what_is_drawn_does_not_change_the_document() -> None:
    for name in COMMANDS_RECORDED:
        body = recorded(name)
        before = copy.deepcopy(body)
        on_terminal(body), as_markdown(body), as_html(body)
        assert body == before
