"""Actions of a router: found by name, their arguments checked, and every one answered."""

from typing import Any

import msgspec
import pytest

from router.core.managing import BAD_REQUEST, CONFLICT, FAILED, NOT_FOUND, UNAVAILABLE, Actions, Answer, Refusal


class Name(msgspec.Struct):
    name: str


def greet(asked: Name, answer: Answer) -> None:
    if asked.name == "nobody":
        raise Refusal(CONFLICT, "nobody is not greeted")
    if asked.name == "defect":
        raise KeyError(asked.name)
    answer({"hello": asked.name})


@pytest.mark.parametrize(
    ("action", "arguments", "code"),
    [
        ("greet", {"name": 5}, BAD_REQUEST),
        ("greet", {}, BAD_REQUEST),
        ("greet", {"name": "nobody"}, CONFLICT),
        ("greet", {"name": "defect"}, FAILED),
        ("part", {"name": "ann"}, NOT_FOUND),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_code(action: str, arguments: dict[str, Any], code: str) -> None:
    actions = Actions()
    actions.register("greet", Name, greet)
    heard: list[dict[str, Any]] = []
    actions.perform(action, arguments, heard.append)
    assert [answer["error"]["code"] for answer in heard] == [code]


def test_nothing_is_performed_while_it_may_not_be() -> None:
    heard: list[dict[str, Any]] = []
    actions, why = Actions(), "this router is not the owner of its part"
    actions.register("greet", Name, greet)
    actions.shut = lambda: why
    actions.perform("greet", {"name": "ann"}, heard.append)
    why = ""
    actions.perform("greet", {"name": "ann"}, heard.append)
    first, second = heard
    assert first["error"]["code"] == UNAVAILABLE and second == {"hello": "ann"}


def test_an_action_gets_its_arguments_as_their_type() -> None:
    actions = Actions()
    actions.register("greet", Name, greet)
    heard: list[dict[str, Any]] = []
    actions.perform("greet", {"name": "ann"}, heard.append)
    assert heard == [{"hello": "ann"}]
