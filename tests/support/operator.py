"""What an operator has a router do, by its actions on channels and users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from router.core.managing import Actions
from router.dialects.app_server import Context
from router.dialects.channel_actions import ChannelActions
from router.dialects.channel_book import ChannelBook, ChannelRow
from support.common import FakeWorker, Rig

Json = dict[str, Any]


class Book(ChannelBook):
    """Channels that are there, and nothing else."""

    def __init__(self, dialect: str, names: dict[str, list[str]]) -> None:
        self._dialect = dialect
        self._names = names

    def names(self) -> list[tuple[str, Iterable[str]]]:
        return list(self._names.items())

    def row(self, application: str, channel: str) -> ChannelRow:
        return ChannelRow(self._dialect, application, channel, 1)

    def address(self, application: str, channel: str) -> tuple[bytes, str]:
        return channel.encode().ljust(16), application


class Operator:
    """Asks one router. workers: those that say how many subscribers they have when they are asked."""

    def __init__(self, rig: Rig, context: Context, books: dict[str, ChannelBook]) -> None:
        self._rig = rig
        self._turns = context.turns
        self._actions = Actions()
        ChannelActions(books, context).register(self._actions)

    async def ask(self, action: str, workers: Iterable[FakeWorker] = (), **arguments: Any) -> Json:
        """The answer."""
        answers: list[Json] = []
        self._actions.perform(action, arguments, answers.append)
        for worker in workers:
            worker.tell_counts()
        await self._rig.settle()
        while self._turns.waiting:
            self._turns.run()
        await self._rig.settle()
        (answer,) = answers
        return answer

    async def code(self, action: str, workers: Iterable[FakeWorker] = (), **arguments: Any) -> str:
        """Of an answer that refuses."""
        return str((await self.ask(action, workers, **arguments))["error"]["code"])
