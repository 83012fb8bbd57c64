"""The documentation: made pages are up to date, links and named files exist, every log event has a meaning."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from router.common.log_events import LOG_EVENTS

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md", "examples/README.md")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


@pytest.mark.parametrize("name", sorted(GENERATOR.PAGES))
def test_a_page_made_from_the_code_is_up_to_date(name: str) -> None:
    stands = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert stands == GENERATOR.PAGES[name](), f"{name} is stale: run `make docs` and commit docs/reference"


def test_every_log_event_has_a_meaning_and_every_meaning_an_event() -> None:
    assert set(GENERATOR.log_events()) == set(GENERATOR.meanings())
    assert list(LOG_EVENTS) == sorted(LOG_EVENTS)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "site" / "architecture" / "index.html").exists()


def test_every_page_is_in_the_table_of_contents_of_the_site() -> None:
    """A page that nothing leads to is one that nobody reads."""
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    docs = ROOT / "docs"
    assert {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} == listed, "see nav in mkdocs.yml"


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_of_a_page_outside_of_the_site_lead_somewhere(name: str) -> None:
    """The site's own links, with their anchors, are looked at where it is built."""
    page = ROOT / name
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), f"{name} links to {target}, which is not there"
        if anchor:
            assert anchor in _anchors(found.read_text(encoding="utf-8")), f"{name} links to {target}: no such heading"


def _anchors(text: str) -> set[str]:
    """Those that the headings of a page have on the site."""
    headings = re.findall(r"^#+ (.*?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading)).lower() for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_make_targets_that_the_pages_name_exist_and_are_in_its_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    targets, helped = set(phony.split()), " ".join(re.findall(r'@echo "(.*)"', makefile))
    assert {target for target in targets if f"make {target} " not in helped} == {"help"}
    for page in [*(ROOT / "docs").rglob("*.md"), *map(ROOT.joinpath, OUTSIDE)]:
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)(?=[` ])", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, f"{page.name} names a target that is none"


def test_files_that_the_pages_name_exist() -> None:
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for name in GENERATOR.files_named(page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}, which is not there"
