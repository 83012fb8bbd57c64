"""What several routers say of the same workers, made one."""

from __future__ import annotations

from farm.supervisor.status_links import Answers


def test_a_worker_has_the_numbers_that_it_sent_last() -> None:
    sent = {"pid": 5, "shard": 0, "devices": 2, "heard_s": 0.9, "memory": 7, "connections": 3}
    later = sent | {"devices": 1, "heard_s": 0.2, "connections": 4}
    joined = {"pid": 5, "shard": 0, "devices": 0, "heard_s": 0.0}  # a moment ago: no numbers yet
    for rows in ([sent, later, joined], [joined, later, sent], [later, joined, sent]):
        answers = Answers({number: {"workers": [row]} for number, row in enumerate(rows)}, 3)
        assert answers.workers == {5: later | {"devices": 3, "links": 3}}
