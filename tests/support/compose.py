"""deploy/compose.yaml and deploy/Dockerfile, read for tests: no daemon of Docker is needed."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import yaml

from support.sources import ROOT

DEPLOY: Final = ROOT / "deploy"
COMPOSE_FILE: Final = DEPLOY / "compose.yaml"
DOCKERFILE: Final = DEPLOY / "Dockerfile"
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def compose(**variables: str) -> Any:
    """The file with these variables put in, or their defaults. Raises: KeyError: one has to be set."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        return variables.get(name, rest) if kind == "-" else variables[name]

    return yaml.safe_load(_VARIABLE.sub(value, COMPOSE_FILE.read_text()))


def instructions(name: str) -> list[str]:
    """What stands behind each such instruction of the Dockerfile, lines that go on joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def health_check() -> list[str]:
    """The command of HEALTHCHECK."""
    (line,) = instructions("HEALTHCHECK")
    found: list[str] = json.loads(line[line.index("CMD") + 3 :])
    return found
