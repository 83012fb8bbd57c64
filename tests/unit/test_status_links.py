"""What several routers say of the same workers, made one."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from farm.supervisor.status_links import Answers, StatusLinks


class Link:
    """Answers with its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def manage(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"by": self.number, action: arguments}


def test_a_worker_has_the_numbers_that_it_sent_last() -> None:
    sent = {"pid": 5, "shard": 0, "devices": 2, "heard_s": 0.9, "memory": 7, "connections": 3}
    later = sent | {"devices": 1, "heard_s": 0.2, "connections": 4}
    joined = {"pid": 5, "shard": 0, "devices": 0, "heard_s": 0.0}  # a moment ago: no numbers yet
    for rows in ([sent, later, joined], [joined, later, sent], [later, joined, sent]):
        answers = Answers({number: {"workers": [row]} for number, row in enumerate(rows)}, 3)
        assert answers.workers == {5: later | {"devices": 3, "links": 3}}


@pytest.mark.parametrize(
    ("here", "answered", "elsewhere", "asked"),
    [([0, 1], [0, 1], None, 0), ([0, 1], [1], None, 1), ([1], [], None, 1), ([], [], 2, 2), ([0], [0], 2, 0)],
)
def test_an_action_goes_to_a_router_that_answers_or_to_one_of_another_host(
    here: list[int], answered: list[int], elsewhere: int | None, asked: int
) -> None:
    links = StatusLinks([Link(n) for n in range(3)], lambda: here, lambda: elsewhere)  # type: ignore[misc]
    links.last = Answers({number: {"workers": []} for number in answered}, len(here))
    assert trio.run(links.manage, "greet", {"name": "ann"}) == {"by": asked, "greet": {"name": "ann"}}


def test_without_a_router_nothing_is_done() -> None:
    links = StatusLinks([Link(0)], list, lambda: None)  # type: ignore[list-item]
    assert trio.run(links.manage, "greet", {}) is None
