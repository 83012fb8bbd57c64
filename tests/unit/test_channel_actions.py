"""Pages of channels: all of them, each once and in order, whatever the size of a page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from support.common import Rig, in_rig, settings_with
from support.operator import Book, Operator

from router.common.token import Tokens
from router.core.managing import BAD_REQUEST, NOT_FOUND, REFUSED, UNAVAILABLE
from router.dialects import channel_actions
from router.dialects.app_server import Context

BOOKS = {
    "alpha": {"2": ["b", "a", "c/d"], "1": ["b", "room-2", "room-1"]},
    "beta": {"": ["z", "room-3"]},
}
ALL = [
    ("alpha", "1", "b"),
    ("alpha", "1", "room-1"),
    ("alpha", "1", "room-2"),
    ("alpha", "2", "a"),
    ("alpha", "2", "b"),
    ("alpha", "2", "c/d"),
    ("beta", "", "room-3"),
    ("beta", "", "z"),
]


def made(rig: Rig) -> Operator:
    context = Context(rig.hub.core, Tokens((b"k" * 32,)), settings_with(), rig.clock.unix, dict)
    return Operator(rig, context, {name: Book(name, names) for name, names in reversed(BOOKS.items())})


async def pages(operator: Operator, **arguments: Any) -> list[list[tuple[str, str, str]]]:
    """All pages from the first to the last."""
    found = []
    after: str | None = ""
    while after is not None:
        page = await operator.ask("channels", after=after, **arguments)
        found.append([(row["dialect"], row["application"], row["channel"]) for row in page["channels"]])
        after = page["next"]
    return found


@pytest.mark.parametrize("looked_at", [1, 2, 1000])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9, 1000])
@in_rig()
async def test_pages(rig: Rig, monkeypatch: pytest.MonkeyPatch, limit: int, looked_at: int) -> None:
    operator = made(rig)
    monkeypatch.setattr(channel_actions, "_LOOKED_AT", looked_at)
    found = await pages(operator, limit=limit)
    assert [name for page in found for name in page] == ALL
    assert {len(page) for page in found[:-1]} <= {limit}
    assert found[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"prefix": "room-"}, [ALL[1], ALL[2], ALL[6]]),
        ({"dialect": "alpha", "application": "2"}, ALL[3:6]),
        ({"dialect": "beta"}, ALL[6:]),
        ({"application": "3"}, []),
    ],
)
@in_rig()
async def test_which(rig: Rig, arguments: dict[str, str], expected: list[tuple[str, str, str]]) -> None:
    operator = made(rig)
    for limit in (1, 1000):
        found = await pages(operator, limit=limit, **arguments)
        assert [name for page in found for name in page] == expected


@in_rig()
async def test_what_is_not_there(rig: Rig) -> None:
    operator = made(rig)
    answer = await operator.ask("channels", dialect="gamma")
    assert answer["error"]["code"] == NOT_FOUND
    assert "alpha, beta" in answer["error"]["message"]
    assert await operator.code("channel", dialect="gamma", channel="a") == NOT_FOUND
    assert await operator.code("channels", limit=0) == BAD_REQUEST
    assert await operator.code("user.terminate", dialect="beta", user="ann") == REFUSED


class Broken(Book):
    """One whose channels cannot be gone through."""

    def names(self) -> list[tuple[str, Iterable[str]]]:
        raise KeyError("a defect")


@in_rig()
async def test_a_list_that_fails_is_answered_and_the_next_one_begins(rig: Rig) -> None:
    context = Context(rig.hub.core, Tokens((b"k" * 32,)), settings_with(), rig.clock.unix, dict)
    operator = Operator(rig, context, {"alpha": Broken("alpha", {}), "beta": Book("beta", BOOKS["beta"])})
    for _ in range(2):
        assert await operator.code("channels", dialect="alpha") == UNAVAILABLE
    page = await operator.ask("channels", dialect="beta")
    assert [row["channel"] for row in page["channels"]] == ["room-3", "z"]
