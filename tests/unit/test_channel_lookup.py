"""How commands find the dialect and the application of a channel, however many channels begin as it does."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from support.common import Rig, in_rig, settings_with
from support.operator import Book, Operator

from farm.admin_client import AdminClient
from farm.cli.commands.channel import _found
from farm.control import ControlError
from router.common.token import Tokens
from router.dialects.app_server import Context

MANY = [f"room{number}" for number in range(1100)]
NAMES = {
    "alpha": {"1": [*MANY, "room"], "2": [*MANY, "room\U0010ffffa"], "3": [*MANY, "hall", "both"]},
    "beta": {"": [*MANY, "a/b", "room\U0010ffff", "hall2"]},
    "gamma": {"x": ["both", "last"]},
}


class Client:
    """An admin port in this process: the actions of a router."""

    def __init__(self) -> None:
        self.asked = 0

    def get(self, path: str, **query: Any) -> Mapping[str, Any]:
        answers: list[Mapping[str, Any]] = []

        @in_rig()
        async def ask(rig: Rig) -> None:
            context = Context(rig.hub.core, Tokens((b"k" * 32,)), settings_with(), rig.clock.unix, dict)
            operator = Operator(rig, context, {name: Book(name, names) for name, names in NAMES.items()})
            given = {name: value for name, value in query.items() if value is not None}
            answers.append(await operator.ask(path, **given))

        ask()
        self.asked += 1
        return answers[0]


def found(channel: str, application: str = "") -> tuple[str, str]:
    client = Client()
    place = _found(cast(AdminClient, client), channel, application)
    assert client.asked <= 6  # one for each application, and one for the end
    return place


def test_it_is_found_however_many_others_begin_so() -> None:
    assert found("room") == ("alpha", "1")
    assert found("room\U0010ffff") == ("beta", "")
    assert found("room\U0010ffffa") == ("alpha", "2")
    assert found("a/b") == ("beta", "")
    assert found("last") == ("gamma", "x")
    assert found("both", "x") == ("gamma", "x")
    assert found("hall") == ("alpha", "3")


def test_one_of_several_and_one_that_is_none_are_no_guess() -> None:
    with pytest.raises(ControlError, match=r"several have a channel 'both' \(alpha 3, gamma x\)"):
        found("both")
    for name in ("roo", "rooms", "hall3", ""):
        with pytest.raises(ControlError, match="no channel"):
            found(name)
