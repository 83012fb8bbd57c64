"""A release: the CHANGELOG has the form of Keep a Changelog 1.1.0, and one place says which version this is."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

import pytest
from support.dialect_files import tracked
from support.sources import ROOT

from farm.supervisor.api.openapi import description
from router import __version__

KINDS: Final = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED: Final = "[Unreleased]"
VERSION: Final = r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}"
SOURCE: Final = "router/__init__.py"
BEGINNING, *PARTS = re.split(r"^## (.+)\n", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
VERSIONS: Final = dict(zip(PARTS[::2], PARTS[1::2], strict=True))
"""Heading to text."""
RELEASED: Final = [name for name in VERSIONS if name != UNRELEASED]


def numbers(version: str) -> tuple[int, ...]:
    """Of a version, to compare it."""
    assert re.fullmatch(VERSION, version), f"{version} is no version: 1.2.3, say"
    return tuple(map(int, version.split(".")))


def number(heading: str) -> tuple[int, ...]:
    """The same of the heading of a release."""
    found = re.fullmatch(r"\[([^]]+)\] - (\d{4}-\d\d-\d\d)", heading)
    assert found is not None, f"## {heading}: not of the form [1.2.3] - 2026-11-26"
    return numbers(found[1])


def test_the_changelog_has_its_versions_in_order() -> None:
    assert BEGINNING.startswith("# Changelog\n")
    assert len(VERSIONS) == len(PARTS) / 2, "a version stands twice"
    assert UNRELEASED not in list(VERSIONS)[1:]
    found = [number(heading) for heading in RELEASED]
    assert found == sorted(set(found), reverse=True)
    days = [heading.rpartition(" ")[2] for heading in RELEASED]
    assert days == sorted(days, reverse=True)


@pytest.mark.parametrize("heading", VERSIONS)
def test_a_version_of_the_changelog(heading: str) -> None:
    _, *parts = re.split(r"^#+ (.+)\n", VERSIONS[heading], flags=re.MULTILINE)
    kinds = parts[::2]
    assert kinds == [kind for kind in KINDS if kind in kinds], f"its headings are {', '.join(KINDS)}, in this order"
    for kind, text in zip(kinds, parts[1::2], strict=True):
        lines = [line for line in text.splitlines() if line]
        assert lines and lines[0].startswith("- "), f"{kind}: a list of changes"
        assert all(re.match(r"- \S|  \S", line) for line in lines), (
            f"{kind}: an entry begins with -, and goes on with 2 spaces"
        )
        assert len(set(lines)) == len(lines), f"{kind}: something stands twice"


def test_the_changelog_is_about_this_version() -> None:
    own = numbers(__version__)
    newest = [number(heading) for heading in RELEASED[:1]]
    if UNRELEASED in VERSIONS:
        assert newest == [] or own >= newest[0]
    else:
        assert newest == [own], f"{SOURCE} says {__version__}"


def test_all_else_takes_the_version_from_one_place() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (project["project"]["dynamic"], "version" in project["project"]) == (["version"], False)
    assert project["tool"]["setuptools"]["dynamic"] == {"version": {"attr": "router.__version__"}}
    assert description([])["info"]["version"] == __version__


def test_no_page_and_no_file_of_a_deployment_names_another_version() -> None:
    """They name none, or a placeholder: what they say of a version would be wrong with the next one."""
    named = re.compile(rf'(?:\bconnection[-_]farm|\bfarm)[-_=@: ]+v?({VERSION})\b|__version__ = "({VERSION})"')
    found: dict[str, set[str]] = {}
    for name in tracked():
        if name.startswith(("docs/", "deploy/", "examples/", "farm/", "router/")) or "/" not in name:
            text = (ROOT / name).read_bytes().decode(errors="replace")
            found[name] = {one[1] or one[2] for one in named.finditer(text)}
    assert {name: versions for name, versions in found.items() if versions} == {SOURCE: {__version__}}
