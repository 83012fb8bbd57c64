"""Which dialects are there, for tests that must run without any one of them."""

from __future__ import annotations

from typing import Any

from farm.settings import all_sections


def known(settings: dict[str, Any]) -> dict[str, Any]:
    """These settings of a farm, without those of dialects that are not there."""
    there = {section.SECTION for section in all_sections()}
    return {key: value for key, value in settings.items() if key.partition(".")[0] in there}


def alone(name: str) -> dict[str, bool]:
    """Settings of a farm that speaks only this dialect."""
    (switches,) = (section for section in all_sections() if section.SECTION == "dialects")
    return {f"dialects.{one}": one == name for one in switches.__annotations__}
