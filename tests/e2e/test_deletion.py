"""Nothing needs a dialect but its own files: without any one of them the rest imports, is documented, and works.

What is run here of the rest is what could notice; `make test-deletion` runs all of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import dialects
from support.deletion import copy_without, run
from support.deletion import pytest as run_tests

NOTICES = (
    "test_dialect_names",
    "test_errors",
    "test_imports",
    "test_store_kinds",
    "test_docs.py",
    "test_every_dialect.py",
)
SEES_NOTHING = (
    "circle",  # fewer modules make none
    "loads_nothing_of",  # nor do they load more
    "up_to_date",  # the copy's pages have just been made
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that all copies stand in, one after the other: only the first is compiled."""
    return tmp_path_factory.mktemp("copy")


@pytest.mark.parametrize("dialect", dialects.names())
def test_the_rest_works_without(dialect: str, folder: Path) -> None:
    left_out = copy_without(dialect, folder)
    assert any(name.startswith("farm/dialects/") for name in left_out)
    assert any(name.startswith("tests/unit/test_") for name in left_out)
    run(folder, "-m", "farm", "check-config")
    chosen = f"({' or '.join(NOTICES)}) and not ({' or '.join(SEES_NOTHING)})"
    run_tests(folder, "tests", "-k", chosen)  # which imports all of them
