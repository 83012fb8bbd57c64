"""The house names no dialect."""

from __future__ import annotations

import re

import pytest
from support import dialects
from support.dialect_files import ROOT, is_of

CODE = [path.relative_to(ROOT).as_posix() for side in ("farm", "router") for path in (ROOT / side).rglob("*.py")]


@pytest.mark.parametrize("dialect", dialects.names())
def test_no_other_code_names_it(dialect: str) -> None:
    named = re.compile(rf"(?<!click\.){dialect}", re.IGNORECASE)
    assert any(is_of(name, dialect) for name in CODE)
    others = [name for name in CODE if not any(is_of(name, one) for one in dialects.names())]
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in others
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if named.search(line)
    ]
    assert not found
