"""Commands that need libraries which a farm runs without: the extras of pyproject.toml."""

from __future__ import annotations

import importlib.util


def not_installed(command: str, extra: str, *modules: str) -> str:
    """One line that names the missing ones of these modules, and how to install them; "" if none is."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if not missing:
        return ""
    return f"{command}: {', '.join(missing)} not installed: `make tools`, or pip install 'connection-farm[{extra}]'"
