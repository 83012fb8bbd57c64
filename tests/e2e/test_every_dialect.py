"""A farm that speaks every dialect that is there: a message of an app server reaches a device of each."""

from __future__ import annotations

from pathlib import Path

from support import dialects
from support.farm_fixture import running_farm


def test_a_message_reaches_a_device_of_each(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", dialects.settings(tmp_path)) as farm, dialects.reached(farm) as check:
        check()
