"""What workers want the main server (`router.auth`) to be asked: from their calls to the replies. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from router.common import messages as m
from router.core.sessions import WorkerSession


class Questions(Protocol):
    """Has the main server asked. A request is known by the lease of its worker and the number of its call."""

    def ask(
        self, asked: m.Authorise, asker: tuple[object, int], reply: Callable[[int, m.Verdict | None], None], /
    ) -> None:
        """Calls back once, with the status of the reply and the verdict; not if the request was withdrawn."""

    def withdraw(self, asker: tuple[object, int], /) -> None:
        """The answer is not waited for any more."""

    def lost(self, worker: object, /) -> None:
        """The same for all requests of a worker."""


class _NoMainServer:
    def ask(self, asked: m.Authorise, asker: object, reply: Callable[[int, m.Verdict | None], None], /) -> None:
        reply(m.FAILED, None)

    def withdraw(self, asker: object, /) -> None:
        pass

    def lost(self, worker: object, /) -> None:
        pass


class Authorising:
    """Calls of AUTHORISE. `questions`: what has the main server asked; at first nothing does, and they fail."""

    __slots__ = ("questions",)

    def __init__(self) -> None:
        self.questions: Questions = _NoMainServer()

    def asked(self, session: WorkerSession, message: m.Authorise, number: int) -> None:
        """AUTHORISE has come. Its batch does not wait for the answer, as a main server that is slow must not hold up
        what is confirmed."""
        self.questions.ask(message, (session.lease, number), partial(session.reply, number))

    def withdrawn(self, session: WorkerSession, message: m.Withdraw, number: None) -> None:
        """WITHDRAW has come."""
        self.questions.withdraw((session.lease, message.number))
