"""Walks over the connections of a worker that tell of broadcasts."""

from typing import Any

from farm.dialects import BroadcastTracker, Close, Effects, Session
from farm.worker.broadcasts import BroadcastScan
from farm.worker.connection import OPEN, Connection


class Board(BroadcastTracker):
    """Fails for the sessions that it is told to."""

    session_type = Session

    def __init__(self, failing: Session) -> None:
        self._failing = failing

    def changed(self, key: str, value: str | None) -> bool:
        return True

    def notify(self, session: Any) -> Effects:
        if session is self._failing:
            raise LookupError("a defect")
        return (b"news",)


def test_a_defect_for_one_session_costs_its_connection_and_no_other_is_passed_over() -> None:
    connections = {}
    for fd in (3, 4, 5):
        connections[fd] = connection = Connection(fd, 0, 0.0)
        connection.phase, connection.session = OPEN, Session()
    failing = connections[4].session
    assert isinstance(failing, Session)
    news = BroadcastScan({"board": Board(failing)})
    news.broadcast_changed("board", "key", "value")
    told = {connection.fd: list(effects) for connection, effects in news.step(connections)}
    assert told == {3: [b"news"], 4: [Close(1011, "internal error")], 5: [b"news"]}
