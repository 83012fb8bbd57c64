"""The project's own sources as syntax trees, each read once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_BODIES: Final = ("body", "orelse", "handlers", "finalbody", "cases")


@cache
def tree(path: Path) -> ast.Module:
    """That of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, at_once: bool = False) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Those of a file, anywhere in it. at_once: only those that are done when it is imported, of no function's and of
    no type checker's."""
    return tuple(_imports(tree(path), at_once))


def _imports(node: ast.AST, at_once: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    elif not at_once or not (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ):
        for body in _BODIES:  # expressions have none
            for inner in getattr(node, body, ()):
                yield from _imports(inner, at_once)
