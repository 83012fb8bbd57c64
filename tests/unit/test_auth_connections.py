"""Connections to main servers that are not in use."""

import trio

from router.auth.connections import Connections


class Connection:
    """One that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed += 1


def test_the_one_that_was_used_last_is_taken_first_and_the_others_end() -> None:
    async def main() -> None:
        connections = Connections(Connection)
        first, second = connections.take("a"), connections.take("a")
        assert first is not second
        connections.give("a", first, 1.0)
        connections.give("a", second, 2.0)
        assert connections.take("b") not in (first, second)
        assert connections.take("a") is second
        connections.give("a", second, 3.0)
        await connections.close_idle(2.5)
        assert (first.closed, second.closed) == (1, 0)
        await connections.close_idle(2.5)
        assert connections.take("a") is second
        await connections.close_idle(10)
        assert (first.closed, second.closed) == (1, 0)
        assert connections.take("a") not in (first, second)

    trio.run(main)
