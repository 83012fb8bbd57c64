"""Periodic work must not end a process because it failed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.common import logs


def guarded(event: str, do: Callable[..., Any], *what: Any) -> None:
    """Call it. Whatever it raises is one log line in a while, under this name, with its trace."""
    try:
        do(*what)
    except Exception as error:
        logs.limited(event, at="error", per=type(error).__name__, exc=error)
