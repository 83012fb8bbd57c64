"""Connections to main servers that are not in use."""

import trio
import trio.testing

from router.auth.connections import Connections


class Connection:
    """One that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = 0
        self.may_close = trio.Event()

    async def aclose(self) -> None:
        await self.may_close.wait()
        self.closed += 1


def test_the_one_that_was_used_last_is_taken_first_and_the_others_end() -> None:
    async def main() -> None:
        connections = Connections(Connection)
        first, second = connections.take("a"), connections.take("a")
        assert first is not second
        first.may_close.set()
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


def test_one_of_another_url_may_be_given_while_idle_ones_are_closed() -> None:
    async def main() -> None:
        connections = Connections(Connection)
        first, second = connections.take("a"), connections.take("b")
        connections.give("a", first, 1.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connections.close_idle, 2.0)
            await trio.testing.wait_all_tasks_blocked()
            connections.give("b", second, 1.0)
            first.may_close.set()
        assert (first.closed, second.closed) == (1, 0)
        assert connections.take("b") is second

    trio.run(main)
