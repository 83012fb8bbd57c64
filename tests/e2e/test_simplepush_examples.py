"""The programs in examples/, as they stand there, against a whole farm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest
from support.farm_fixture import PATIENCE_S, ROOT, Farm, running_farm
from support.installed import find_program
from support.simplepush import Device

PUSHES: Final = 250
"""More than two requests' worth."""
SETTINGS: Final = {"store.kind": "memory", "endpoint.max_body_bytes": 60_000, "router.routers": 1}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("farm") / "data", SETTINGS, workers=1) as found:
        yield found


def run(program: list[str], router: str, pushes: list[str]) -> subprocess.CompletedProcess[str]:
    text = "\n\n".join(pushes)
    return subprocess.run(
        [*program, router], input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@pytest.mark.parametrize("example", ["bulk_push.py", "bulk_push.mjs"])
def test_bulk_push(farm: Farm, example: str) -> None:
    interpreter = sys.executable if example.endswith(".py") else find_program("node")
    program = [interpreter, str(ROOT / "examples" / example)]
    with Device(farm) as away:
        away.hello()
        stored = away.register()[1]
    with Device(farm) as device:
        device.hello()
        endpoint = device.register()[1]
        pushes = [json.dumps({"endpoint": endpoint, "version": number}) for number in range(1, PUSHES - 1)]
        pushes += [json.dumps({"endpoint": stored, "version": 1}), json.dumps({"token": "x", "version": 1})]
        before = farm.status()["routers"][0]["http_requests"]
        done = run(program, farm.url(""), pushes)
        assert done.returncode == 0, done.stderr
        assert farm.status()["routers"][0]["http_requests"] == before + 3
        told = [line.partition(" ") for line in done.stdout.splitlines()]
        assert [push for _, _, push in told] == pushes
        assert {status for status, _, _ in told[:-2]} <= {"200", "202"}
        assert [status for status, _, _ in told[-2:]] == ["202", "404"]
        versions = [0]
        while versions[-1] < PUSHES - 2:
            updates = device.updates()
            device.ack(*updates)
            versions += [version for _, version in updates]
        assert versions == sorted(versions)
    too_long = json.dumps({"endpoint": stored, "version": 2, "data": "x" * 1000})
    refused = run(program, farm.url(""), [too_long] * PUSHES)
    assert refused.returncode == 1 and "413" in refused.stderr and not refused.stdout
