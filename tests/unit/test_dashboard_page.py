"""The dashboard's page as it is made of its files: its policy, and that nothing in it could become HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from farm.supervisor import dashboard

FOLDER = Path(dashboard.__file__).parent
UNSAFE = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\b|new Function|javascript:|DOMParser"


class Parts(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in self.inline:
            self.inline[self._in].append(data)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts(dashboard.page().body.decode())


def test_the_policy_allows_this_script_and_this_style_alone(parts: Parts) -> None:
    policy = dashboard.page().headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind, texts in parts.inline.items():
        found = base64.b64encode(hashlib.sha256("".join(texts).encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{found}'"
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy and "*" not in policy


def test_nothing_is_loaded_besides_and_no_handler_or_style_stands_in_the_markup(parts: Parts) -> None:
    for tag, attributes in parts.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/svg+xml,")), tag


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.js")))
def test_a_script_makes_no_html_of_a_text_and_is_part_of_the_page(file: str) -> None:
    text = (FOLDER / file).read_text()
    assert not re.search(UNSAFE, text)
    assert file in dashboard.SCRIPTS
    assert len(text.splitlines()) < 300


def test_the_page_is_small() -> None:
    assert len(dashboard.page().body) < 100_000
