"""The site of `make docs` in a browser: nothing is cut off, and its search finds something."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import pytest
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import ROOT, until

WIDEST: Final = ("performance", "reference/errors", "reference/settings", "write-a-dialect")
WRAPPED: Final = """[...document.querySelectorAll(".document table")]
    .every((table) => table.parentElement.matches(".wy-table-responsive"))"""
CUT_OFF: Final = """[...document.querySelectorAll("table, pre")]
    .filter((found) => [found, found.parentElement].some((part) => part.scrollWidth > part.clientWidth + 2))
    .map((found) => found.innerText.slice(0, 60))"""
"""Tables and code that lie outside of their page, and have to be scrolled to be read."""


class Quiet(SimpleHTTPRequestHandler):
    """Without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the site, built anew."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder], check=True, cwd=ROOT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with Chromium(find_chromium(), tmp_path_factory.mktemp("chromium")) as chromium, Tab(chromium) as found:
        yield found


@pytest.mark.parametrize("page", WIDEST)
def test_no_table_and_no_code_is_cut_off(site: str, tab: Tab, page: str) -> None:
    tab.resize(1300, 1000)
    tab.open(f"{site}/{page}/")
    until(lambda: tab.evaluate(WRAPPED), "the theme's frame around each table")
    assert tab.evaluate(CUT_OFF) == []


def test_the_search_finds_a_page(site: str, tab: Tab) -> None:
    tab.open(f"{site}/search.html?q=backups")
    links = "[...document.querySelectorAll('#mkdocs-search-results a')].map((link) => new URL(link.href).pathname)"
    until(lambda: "/operation/" in (tab.evaluate(links) or []), "the page that the search finds")
