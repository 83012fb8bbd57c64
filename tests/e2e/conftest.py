"""What several modules of tests start for themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.main_server import MainServer, running_main_server


@pytest.fixture(scope="module")
def main_server() -> Iterator[MainServer]:
    with running_main_server() as running:
        yield running
