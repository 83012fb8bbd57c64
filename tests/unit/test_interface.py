"""What a supervisor and the code that it starts say of themselves, and when they refuse each other."""

from __future__ import annotations

from typing import Any

import pytest

from farm.supervisor import interface
from farm.supervisor.interface import INTERFACE, LOWEST_INTERFACE
from router.common.messages import LOWEST_PROTOCOL, PROTOCOL

OURS: dict[str, Any] = interface.of_code()
SETTINGS = {"farm": {"workers": 2}}


def of(**versions: tuple[int, int]) -> dict[str, Any]:
    """What another release says."""
    return OURS | {name: list(versions) for name, versions in versions.items()}


def under(supervisor: dict[str, Any]) -> dict[str, Any]:
    """What it starts our code with."""
    (table,) = interface.for_code(SETTINGS).keys() - SETTINGS.keys()
    return {**SETTINGS, table: supervisor}


NEIGHBOURS = [
    of(interface=(INTERFACE, INTERFACE + 1)),
    of(interface=(max(0, LOWEST_INTERFACE - 1), LOWEST_INTERFACE)),
    of(link=(PROTOCOL, PROTOCOL + 2)),
    of(link=(LOWEST_PROTOCOL - 1, LOWEST_PROTOCOL)),
]
STRANGERS = [
    of(interface=(INTERFACE + 1, INTERFACE + 1)),
    of(link=(PROTOCOL + 1, PROTOCOL + 2)),
    of(link=(LOWEST_PROTOCOL - 2, LOWEST_PROTOCOL - 1)),
]


def test_the_settings_are_handed_over_as_they_are() -> None:
    assert SETTINGS.items() <= interface.for_code(SETTINGS).items()


@pytest.mark.parametrize("other", [OURS, *NEIGHBOURS])
def test_a_release_that_speaks_a_version_of_ours(other: dict[str, Any]) -> None:
    assert interface.why_not_run(other) == interface.why_not_under(under(other)) == ""


@pytest.mark.parametrize("other", STRANGERS)
def test_one_that_speaks_none(other: dict[str, Any]) -> None:
    for why in (interface.why_not_run(other), interface.why_not_under(under(other))):
        assert why.startswith("this version needs a restart (farm drain, then farm start): it speaks versions ")
        assert "the supervisor that runs" in why


def test_the_code_that_runs_may_be_another_release_than_the_supervisor() -> None:
    running, new = of(link=(PROTOCOL + 1, PROTOCOL + 2)), of(link=(PROTOCOL - 1, PROTOCOL))
    assert interface.why_not_run(new) == ""
    assert "the code that runs" in interface.why_not_beside(new, running)
    assert interface.why_not_beside(new, OURS) == ""


def test_releases_that_say_nothing_are_older() -> None:
    """Their supervisors can run our code, and ours cannot run theirs."""
    assert interface.why_not_under(SETTINGS) == ""
    assert "does not say" in interface.why_not_run({"link": OURS["link"], "version": "0.1.0"})
