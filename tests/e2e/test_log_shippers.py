"""deploy/logs: what shippers rely on in the lines of a real farm, and rsyslog with its file.

Vector and Fluent Bit are not run: no registry that this project uses has them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from support.farm_fixture import PATIENCE_S, ROOT, Farm, until
from support.installed import ends_with_us, find_program, with_libraries

LOGS: Final = ROOT / "deploy" / "logs"
ADDED: Final = {"hostname", "service", "message", "msg", "timestamp", "time"}
"""Fields that a shipper gives a line."""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All of a farm that has served and was stopped, with a router that died."""
    farm = Farm(tmp_path_factory.mktemp("shipped") / "farm", {"log.format": "json"}, workers=1)
    farm.start()
    os.kill(farm.status()["routers"][0]["pid"], 9)
    until(lambda: list(farm.events("process.died")), "the farm notices it")
    farm.wait_healthy()
    farm.stop()
    found = farm.log_file.read_text(encoding="utf-8").splitlines()
    assert len(found) > 4
    return found


def test_lines_are_what_the_shippers_take_them_for(lines: list[str]) -> None:
    for line in lines:
        found = json.loads(line)
        assert isinstance(found, dict), line
        assert found["level"] in ("debug", "info", "warning", "error")
        assert {type(found[name]) for name in ("level", "process", "event")} == {str}
        assert datetime.fromisoformat(found["time"]).tzinfo is not None
        assert not [name for name in found if not re.match("[a-z]", name)], "Fluent Bit removes capitals, the journal's"


def test_no_event_has_a_field_that_a_shipper_adds() -> None:
    table = (ROOT / "docs" / "reference" / "log-events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[^|]+\|[^|]+\|([^|]+)\|", table, re.MULTILINE)
    fields = {name for row in rows for name in row.split("`")}
    assert {"host", "why", "hint"} <= fields
    assert not fields & ADDED
    for name, added in (
        ("vector.toml", r"^\.(\w+) ="),
        ("fluent-bit.conf", r"^    (?:Rename +[A-Z]+|Add) +(\w+)"),
        ("rsyslog.conf", r"set \$!farm!(\w+) ="),
    ):
        found = set(re.findall(added, (LOGS / name).read_text(encoding="utf-8"), re.MULTILINE))
        assert found and found <= ADDED, name


@contextmanager
def rsyslog(folder: Path, port: int) -> Iterator[Path]:
    """rsyslog with the file, which it sends to this port. Yields: the socket to which the journal forwards lines."""
    program = find_program("rsyslogd", str(ROOT / ".venv/servers/usr/sbin/rsyslogd"))
    modules = next(Path(program).parents[1].glob("lib/*/rsyslog"))
    text = (LOGS / "rsyslog.conf").read_text(encoding="utf-8")
    assert 'port="5170"' in text
    place, file = folder / "log", folder / "rsyslog.conf"
    file.write_text(
        f'global(workDirectory="{folder}")\nmodule(load="imuxsock" SysSock.Use="off")\n'
        f'input(type="imuxsock" Socket="{place}")\n' + text.replace('port="5170"', f'port="{port}"')
    )
    command = [program, "-M", modules, "-f", file, "-i", folder / "pid"]
    variables = with_libraries(program)
    checked = subprocess.run([*command, "-N1"], env=variables, capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and "error" not in checked.stderr, checked.stderr
    process = subprocess.Popen([*ends_with_us(), *command, "-n"], env=variables)
    try:
        until(place.exists, "rsyslog listens")
        yield place
    finally:
        process.terminate()
        process.wait()


def test_rsyslog_sends_each_line_with_its_fields(lines: list[str], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in lines]
    without_time = [json.dumps({name: value for name, value in row.items() if name != "time"}) for row in rows]
    texts = [*without_time, lines[0], "Traceback (most recent call last):"]
    with socket.create_server(("127.0.0.1", 0)) as there, rsyslog(tmp_path, there.getsockname()[1]) as place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.connect(str(place))
            journal.send(b"<30>Nov 26 20:00:00 cron[1]: of another service")
            for text in texts:
                journal.send(f"<30>Nov 26 20:00:00 farm[1]: {text}".encode())
        there.settimeout(PATIENCE_S)
        connection, _ = there.accept()
        with connection, connection.makefile(encoding="utf-8") as arriving:
            connection.settimeout(PATIENCE_S)
            found: list[dict[str, Any]] = [json.loads(arriving.readline()) for _ in texts]
    for one in found:
        assert one.pop("hostname")
        assert one.pop("service") == "farm"
    assert found[-1].pop("msg") == texts[-1]
    assert found[-2] == json.loads(lines[0])
    for one, text in zip(found[:-2], without_time, strict=True):
        assert datetime.fromisoformat(one.pop("time")).tzinfo is not None
        assert one == json.loads(text)
