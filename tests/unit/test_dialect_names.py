"""The house names no dialect."""

from __future__ import annotations

import re

import pytest
from support import dialects
from support.dialect_files import ROOT, is_of

NAMES = dialects.names()
CODE = [path.relative_to(ROOT).as_posix() for side in ("farm", "router") for path in (ROOT / side).rglob("*.py")]
OTHERS = [name for name in CODE if not any(is_of(name, dialect) for dialect in NAMES)]


@pytest.mark.parametrize("dialect", NAMES)
def test_no_other_code_names_it(dialect: str) -> None:
    named = re.compile(rf"(?<!click\.){dialect}", re.IGNORECASE)
    assert any(is_of(name, dialect) for name in CODE)
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in OTHERS
        if dialect in (text := (ROOT / name).read_text(encoding="utf-8")).lower()
        for number, line in enumerate(text.splitlines(), 1)
        if named.search(line)
    ]
    assert not found
