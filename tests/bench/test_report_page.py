"""`farm bench report`: the page of a folder; and the files that a command writes."""

import base64
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from support.bench import COMMANDS_RECORDED, changed, recorded_result

from bench.cli import main
from bench.commands.common import perform
from bench.errors import BenchError
from bench.figures import results
from bench.figures.json_text import rounded
from bench.figures.results import read, shown

VOID = {"meta", "img", "br", "hr", "input", "link"}


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
        body = recorded_result(name) | {"when": f"2026-01-0{day}T12:00:00+00:00"}
        (folder / f"{name}.json").write_text(json.dumps(body))


def perform_recorded(body: dict[str, Any], command: str = "connect", **output: str | bool) -> Any:
    """Run `perform` as a command would, with a recorded run in the place of a new one; returns click's result."""

    @click.command()
    def recorded_command() -> None:
        fields = {name: value for name, value in body.items() if name not in results.FIELDS and name != "commit"}
        perform(command, body["options"] | output, lambda interrupt, progress: fields)

    return CliRunner().invoke(recorded_command)


def test_the_page_of_a_folder_stands_alone(tmp_path: Path) -> None:
    folder_of_results(tmp_path)
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "drawing charts ..." in result.stderr
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
    assert text.count("<img") == sum(len(shown(recorded_result(name)).charts) for name in COMMANDS_RECORDED)
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


def test_a_command_writes_json_markdown_and_pictures(tmp_path: Path) -> None:
    body, folder = recorded_result("connect"), tmp_path / "a" / "results"
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
    result = perform_recorded(recorded_result("connect"), out_folder=str(tmp_path), out_name="run", pictures=False)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "run.md"}
    assert "![" not in (tmp_path / "run.md").read_text()


def test_a_result_that_nothing_can_show_is_written_all_the_same(tmp_path: Path) -> None:
    body = recorded_result("connect")
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
