"""deploy/Dockerfile and deploy/compose.yaml: by the schema of compose, and what they name exists. Nothing is built."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest
from support.compose import COMPOSE_FILE, DEPLOY, DOCKERFILE, compose, instructions
from support.sources import ROOT

SECRETS: Final = {"VALKEY_PASSWORD": "secret", "ADMIN_READ_TOKEN": "0123456789abcdef", "GRAFANA_PASSWORD": "secret"}


def test_compose_keeps_to_its_schema() -> None:
    command = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([*command, COMPOSE_FILE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    command = [Path(sys.executable).parent / "hadolint", "--no-color", DOCKERFILE]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_what_compose_names_is_there() -> None:
    found = compose(**SECRETS)
    services = found["services"]
    build = services["farm"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    for service in services.values():
        for config in service.get("configs", ()):
            assert config["source"] in found["configs"]
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            there = (DEPLOY / source).is_file() if source.startswith(".") else source in found["volumes"]
            assert there, f"{source} is mounted and is not there"


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_there_is_no_default_for_a_secret(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        compose(**{other: value for other, value in SECRETS.items() if other != name})


def test_docker_waits_until_the_farm_has_drained() -> None:
    service = compose(**SECRETS)["services"]["farm"]
    drain = sum(float(service["environment"][f"FARM_DRAIN_{name}"]) for name in ("NOTICE", "SECONDS"))
    close_timeout = drain_grace = 5.0
    assert float(service["stop_grace_period"].removesuffix("s")) > drain + close_timeout + drain_grace


def test_the_image_gets_what_it_copies_and_runs_as_nobody_special() -> None:
    ignored, wanted = [], []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            (wanted if line.startswith("!") else ignored).append(line.removeprefix("!"))
    assert "*" in ignored
    sources = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert sources
    for name in sources:
        assert (ROOT / name).exists()
        assert name in wanted
        assert not any(fnmatch(name, pattern) for pattern in ignored if pattern != "*")
    assert instructions("USER") == ["10001:10001"]
    assert all(line.startswith("python:3.11-slim-") for line in instructions("FROM"))
