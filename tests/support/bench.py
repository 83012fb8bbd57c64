"""What tests of the bench share: runs of its commands and against servers that misbehave, results, rows of pushes."""

import io
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.figures.results import read
from bench.interrupt import Interrupt
from bench.load.dialect import Dialect
from bench.load.protocols import REFERENCE
from bench.load.samples import (
    Arrivals,
    Pushes,
)
from bench.progress import Progress
from bench.runs import connect as connecting
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.collected import Absences
from bench.runs.load import Load
from bench.target import Target
from support.misbehaving import Misbehaving

RECORDED = Path(__file__).parents[1] / "data" / "bench"
COMMANDS_RECORDED = ("connect", "push", "instances")
SECOND = 1_000_000


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def push_with(
    server: Misbehaving, plan: PushPlan, devices: int = 20, dialect: Dialect = REFERENCE, **load: Any
) -> dict[str, Any]:
    """The document of `push`."""
    payload = max(plan.payload, dialect.least)
    spoken, plan = pushing.speaking(dialect, Load(devices, endpoints_every=1, **load), plan, payload)
    return pushing.run(
        Target(url=server.url, admin=""),
        spoken,
        plan,
        interrupt=Interrupt(),
        progress=quiet(),
    )


def push_to(
    server: Misbehaving,
    *,
    grace: float = 0.2,
    payload: int = 0,
    rate: float = 0.0,
    dialect: Dialect = REFERENCE,
) -> dict[str, Any]:
    """One run of pushes."""
    plan = PushPlan(connections=4, seconds=0.3, grace=grace, payload=payload, rate=rate)
    (run,) = push_with(server, plan, dialect=dialect)["runs"]
    assert run["pushes"] == run["sent"] == server.pushes
    parts = ("delivered", "stored", "superseded", "undelivered", "refused", "unanswered", "lost")
    assert run["sent"] == sum(run[part] for part in parts)
    assert isinstance(run, dict)
    return run


def connect_to(server: Misbehaving, load: Load, *, hold: float = 0.1, plan: PushPlan | None = None) -> dict[str, Any]:
    """What `connect` measured."""
    body = connecting.run(
        Target(url=server.url, admin=""),
        load,
        hold=hold,
        baseline=False,
        interrupt=Interrupt(),
        progress=quiet(),
        plan=plan,
    )
    measured = body["connect"]
    assert isinstance(measured, dict)
    return measured


def after_warm_up(devices: int, faults: list[str]) -> Callable[[int], str]:
    """The faults in turn, for the devices that come after the warm-up of `connect`."""
    return lambda number: "" if number < devices else faults[number % len(faults)]


def farm_bench(*arguments: str, file: Path, code: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "farm", "bench", *arguments, "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == code, result.stderr + result.stdout
    body = json.loads(file.read_text())
    assert isinstance(body, dict)
    return body


def balanced(run: dict[str, Any]) -> bool:
    """sent = delivered + stored + superseded + refused, so nothing was lost and nobody was cut off."""
    return bool(run["sent"] == run["delivered"] + run["stored"] + run["superseded"] + run["refused"])


def recorded_result(name: str) -> dict[str, Any]:
    return read(RECORDED / f"{name}.json")


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in (recorded_result("connect") | fields).items() if value is not ...}


def ended(pid: int) -> bool:
    """Wait until a process that need not be ours is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)


def unmasked(data: bytes) -> list[bytes]:
    """The payloads of whole client frames."""
    found = []
    while data:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        key, body = data[start : start + 4], data[start + 4 : start + 4 + size]
        found.append(bytes(byte ^ key[at % 4] for at, byte in enumerate(body)))
        data = data[start + 4 + size :]
    return found


def said(data: bytes) -> list[Any]:
    return [json.loads(payload) for payload in unmasked(data)]


def pushes(*rows: tuple[int, int, int]) -> Pushes:
    """(channel, second, status); each answered after 1000 microseconds."""
    result = Pushes()
    for channel, second, status in rows:
        result.channels.append(channel)
        result.versions.append(second * SECOND)
        result.statuses.append(status)
        result.times.append(1000)
    return result


def arrivals(*rows: tuple[int, int, int]) -> Arrivals:
    """(channel, second of the push, second of the arrival)."""
    result = Arrivals()
    for channel, version, second in rows:
        result.channels.append(channel)
        result.versions.append(version * SECOND)
        result.times.append(second * SECOND)
    return result


def absences(*rows: tuple[int, int, int | None]) -> Absences:
    """(device, second gone, second back)."""
    result = Absences()
    for device, gone, back in rows:
        result.gone.append(device)
        result.gone_times.append(gone * SECOND)
        if back is not None:
            result.back.append(device)
            result.back_times.append(back * SECOND)
            result.attempts.append(1)
    return result
