"""logfmt, and lines for systemd's journal; in which form a command complains before it has its settings."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.farm_command import TIMEOUT_S, environ

from farm.cli import start_log
from router.common.log_forms import FIELDS, FORMATS, form

PAIR = re.compile(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s="]*)(?: |$)')  # as go-logfmt and Loki take them
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.text())


def line(name: str, fields: dict[str, Any], level: int = logging.INFO, journal: bool = False) -> str:
    record = logging.LogRecord("farm", level, "", 0, "thing", None, None)
    setattr(record, FIELDS, fields)
    return form(name, {"process": "worker", "shard": 0}, journal).format(record)


def pairs(text: str) -> dict[str, str]:
    """Of a line in logfmt. Every character of it belongs to a pair."""
    at, found = 0, {}
    while at < len(text):
        pair = PAIR.match(text, at)
        assert pair is not None, text[at:]
        key, value = pair[1], pair[2]
        assert key not in found
        found[key] = json.loads(value) if value.startswith('"') else value
        at = pair.end()
    return found


def test_a_line_in_logfmt() -> None:
    text = line("logfmt", {"devices": 12_000, "soon": True, "why": None, "text": 'a "b"', "event": "x", "a b": 1})
    assert re.match(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info process=worker shard=0 event=thing ", text)
    expected = {"devices": "12000", "soon": "true", "why": "null", "text": 'a "b"', "event_": "x", "a_b": "1"}
    assert expected.items() <= pairs(text).items()


@given(ANYTHING, st.text())
def test_any_value_and_key_is_a_pair_of_logfmt(value: object, key: str) -> None:
    text = line("logfmt", {f"k{key}": value, "last": 1})
    assert text.isprintable()
    found = pairs(text)
    assert found["last"] == "1"
    if isinstance(value, str) and value.isprintable():
        assert value in found.values()


@pytest.mark.parametrize("name", FORMATS)
def test_a_line_for_the_journal_has_a_priority_and_no_time(name: str) -> None:
    levels = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}
    for level, priority in levels.items():
        text = line(name, {"devices": 1}, level, journal=True)
        assert text.startswith(priority)
        assert not re.search(r"\d{4}-\d\d-\d\dT", text)
        assert logging.getLevelName(level).lower() in text
    assert text.removeprefix("<3>").startswith(
        {"text": "error worker[0] thing", "json": '{"level"'}.get(name, "level=")
    )


@pytest.mark.parametrize(
    ("args", "variables", "found"),
    [
        (["start"], {}, "text"),
        (["start", "--set", "log.format=json"], {}, "json"),
        (["start", "--set=log.format=json", "--set", "log.format = logfmt"], {"FARM_LOG_FORMAT": "json"}, "logfmt"),
        (["worker", "--shard", "x"], {"FARM_LOG_FORMAT": "json"}, "json"),
        (["router", "--config"], {"FARM_LOG_FORMAT": " "}, "text"),
        (["start", "--set"], {"FARM_LOG_FORMAT": "xml"}, "text"),
        (["start", "--config", "none.toml"], {}, "text"),
        (["start", "--config", "good.toml"], {}, "logfmt"),
        (["start", "--config=good.toml"], {"FARM_LOG_FORMAT": "json"}, "json"),
        (["start", "--config", "bad.toml"], {}, "text"),
        (["start", "--config", "other.toml"], {}, "text"),
        (["check-config"], {"FARM_LOG_FORMAT": "json"}, None),
        (["status"], {"FARM_LOG_FORMAT": "json"}, None),
        ([], {"FARM_LOG_FORMAT": "json"}, None),
    ],
)
def test_the_form_is_known_before_the_settings_are(
    args: list[str],
    variables: dict[str, str],
    found: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.toml").write_text('[log]\nformat = "logfmt"\n[nonsense]\n')
    Path("bad.toml").write_text('[log\nformat = "json"\n')
    Path("other.toml").write_text('log = ["format"]\n')
    assert start_log.wanted(args, variables) == found


def fails(args: list[str], cwd: Path, journal: bool, **variables: str) -> list[str]:
    """The lines of a farm command that ends with 2; stderr is a stream as systemd has it to its journal."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        place = os.fstat(theirs.fileno())
        named = f"{place.st_dev}:{place.st_ino if journal else place.st_ino + 1}"
        done = subprocess.run(
            [sys.executable, "-m", "farm", *args],
            cwd=cwd,
            env=environ(JOURNAL_STREAM=named, **variables),
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=TIMEOUT_S,
            check=False,
        )
        theirs.close()
        assert (done.returncode, done.stdout) == (2, b"")
        with ours.makefile(encoding="utf-8") as stream:
            return stream.read().splitlines()


def test_a_farm_that_cannot_start_complains_in_the_form_of_its_log(tmp_path: Path) -> None:
    (only,) = fails(["start", "--workers", "x", "--set", "log.format=json"], tmp_path, False)
    found = json.loads(only)
    assert (found["level"], found["event"]) == ("error", "farm.start_failed")
    assert found["why"].startswith("--workers: farm.workers: expected ")
    assert found["time"]


def crashed(form: str, cwd: Path) -> list[str]:
    """The lines of a process that nothing has caught an error of."""
    script = f"from router.common import logs; logs.setup({form!r}, 'info', process='router'); 1 / 0"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=cwd, env=environ(), stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    return done.stderr.decode().splitlines()


def test_an_error_that_nothing_has_caught_is_one_line_where_programs_read_it(tmp_path: Path) -> None:
    (line,) = crashed("json", tmp_path)
    found = json.loads(line)
    assert (found["level"], found["event"]) == ("error", "process.crashed")
    assert found["error"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in found["trace"]
    assert len(crashed("text", tmp_path)) > 2


def test_the_journal_is_told_how_bad_it_is(tmp_path: Path) -> None:
    (only,) = fails(["start", "--workers", "x"], tmp_path, True)
    assert only.startswith("<3>--workers: farm.workers: expected ")
    (only,) = fails(["check-config", "--workers", "x"], tmp_path, True, FARM_LOG_FORMAT="logfmt")
    assert only.startswith("<3>level=error process=farm event=farm.start_failed why=")
    (only,) = fails(["reload", "--set", "farm.workers=x"], tmp_path, True, FARM_LOG_FORMAT="json")
    assert only.startswith("<3>--set: farm.workers: ")  # ExecReload, beside the farm's own lines


def test_a_line_for_the_journal_has_the_priority_of_its_level_whoever_writes_it() -> None:
    script = """
import time
from router.common import logs
from router.push_log import PushLog
logs.setup("json", "info", process="router")
log = PushLog(1000, {"process": "router"})
for number in range(20):
    log.acked(bytes(16), [("slot", number)])
log.flush()
for at in ("info", "warning", "error"):
    logs.limited("an.event", at=at, per=at)
"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        place = os.fstat(theirs.fileno())
        subprocess.run(
            [sys.executable, "-c", script],
            env=environ(JOURNAL_STREAM=f"{place.st_dev}:{place.st_ino}"),
            stderr=theirs,
            timeout=TIMEOUT_S,
            check=True,
        )
        theirs.close()
        with ours.makefile(encoding="utf-8") as stream:
            lines = [(line[:3], json.loads(line[3:])) for line in stream.read().splitlines()]
    priorities = {"info": "<6>", "warning": "<4>", "error": "<3>"}
    assert all(head == priorities[found["level"]] for head, found in lines)
    events = [found["event"] for _, found in lines]
    assert events.count("push.lines_lost") == 1 and events.count("an.event") == 3 and "push.acked" in events
