"""deploy/kubernetes, read for tests: no cluster is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from support.sources import ROOT

FOLDER: Final = ROOT / "deploy/kubernetes"


def resources(kind: str) -> dict[str, Any]:
    """All of this kind, by name."""
    texts = [file.read_text() for file in sorted(FOLDER.glob("*.yaml"))]
    found = [resource for text in texts for resource in yaml.safe_load_all(text)]
    return {resource["metadata"]["name"]: resource for resource in found if resource["kind"] == kind}


def pod(name: str) -> Any:
    """What a StatefulSet has in its pods."""
    return resources("StatefulSet")[name]["spec"]["template"]["spec"]


def container(name: str) -> Any:
    """The one container of such a pod."""
    (only,) = pod(name)["containers"]
    return only


def environment(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of that container. given: values from elsewhere, and those that are to be others."""
    found: dict[str, str] = {}
    for variable in container(name)["env"]:
        key = variable["name"]
        text = given[key] if key in given else variable["value"]
        found[key] = re.sub(r"\$\((\w+)\)", lambda use: found[use[1]], text)
    return found
