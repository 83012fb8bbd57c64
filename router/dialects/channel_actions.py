"""Actions on channels and users of all dialects, for operators: lists, one channel, a test event, the end of a user's
connections (`router.core.managing`).

A list is gathered from all routers: each looks through its own names, a part a turn, for there may be very many, and
gives those that come first. So a page costs the asking router what is in it, however many channels there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from heapq import nsmallest
from itertools import islice
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from router.common import messages as m
from router.common.operation import Operation
from router.core.managing import MAX_PAGE, NOT_FOUND, REFUSED, UNAVAILABLE, Actions, Answer, Refusal, refused
from router.core.operations import Done
from router.dialects.app_server import Context
from router.dialects.channel_book import ChannelBook, ChannelRow, ChannelState, TestEvent
from router.http.parts import Parts

ANY: Final = "-"
"""As the dialect of a user: the only one that knows users."""
_LOOKED_AT: Final = 2000
"""Names that are looked at in one turn."""
_NAME: Final = "farm"
"""As the dialect of the operations here."""
_NO_ANSWER: Final = "a router, or its store, does not answer: try again"

Name = tuple[str, str]
"""Application and channel."""


class Find(Operation, tag=1):
    """The first channels behind a name, in order."""

    REPLY = list[ChannelRow]
    SETTLED = True

    dialect: str
    application: str | None
    prefix: str
    after: Name
    limit: int


class Look(Operation, tag=2):
    """One channel."""

    REPLY = ChannelState
    SETTLED = True

    dialect: str
    application: str
    channel: str


class ListChannels(msgspec.Struct):
    """Arguments of the list. An empty dialect stands for all, None for all applications; after: as `next` of a page."""

    dialect: str = ""
    application: str | None = None
    prefix: str = ""
    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class OneChannel(msgspec.Struct):
    """Arguments that name a channel."""

    dialect: str
    channel: str
    application: str = ""


class PublishEvent(OneChannel, kw_only=True):
    """Arguments of a test event."""

    event: TestEvent


class TerminateUser(msgspec.Struct):
    """Arguments that name a user."""

    dialect: str
    user: str
    application: str = ""


class ChannelActions:
    """The actions, in one router."""

    def __init__(self, books: Mapping[str, ChannelBook], context: Context) -> None:
        """books: of the dialects that are on and have channels, by name."""
        self._books = dict(sorted(books.items()))
        self._operations = context.core.operations
        self._channels = context.core.channels
        self._turns = context.turns
        self._searches = Parts(context.turns, 1, 1)
        self._operations.register(_NAME, {Find: self._find, Look: self._look})

    def register(self, actions: Actions) -> None:
        """Have them performed."""
        actions.register("channels", ListChannels, self._list)
        actions.register("channel", OneChannel, self._show)
        actions.register("channel.publish", PublishEvent, self._publish)
        actions.register("user.terminate", TerminateUser, self._terminate)

    def _book(self, dialect: str) -> ChannelBook:
        """Raises: Refusal."""
        book = self._books.get(dialect)
        if book is None:
            known = ", ".join(self._books) or "none"
            raise Refusal(NOT_FOUND, f"no dialect {dialect!r} with channels is on; those that are: {known}")
        return book

    # ------------------------------------------------------------------ lists

    def _list(self, asked: ListChannels, answer: Answer) -> None:
        first, application, channel = _cursor(asked.after)
        if asked.dialect:
            self._book(asked.dialect)
        wanted = [name for name in self._books if asked.dialect in ("", name) and name >= first]
        found: list[ChannelRow] = []

        def go_on() -> None:
            if not wanted or len(found) > asked.limit:
                more = len(found) > asked.limit
                rows = found[: asked.limit]
                end = f"{rows[-1].dialect}/{rows[-1].application}/{rows[-1].channel}" if more else None
                answer({"channels": msgspec.to_builtins(rows), "next": end})
                return
            dialect = wanted.pop(0)
            after = (application, channel) if dialect == first else ("", "")
            find = Find(dialect, asked.application, asked.prefix, after, asked.limit + 1 - len(found))
            self._operations.at_all(find, partial(known, find.limit))

        def known(limit: int, status: int, parts: list[list[ChannelRow]]) -> None:
            if status != m.OK:
                answer(refused(UNAVAILABLE, _NO_ANSWER))
                return
            rows = {(row.application, row.channel): row for part in parts for row in part}
            found.extend(rows[name] for name in sorted(rows)[:limit])
            go_on()

        go_on()

    def _find(self, key: bytes, asked: Find, done: Done) -> None:
        """At each router, one such search at a time; subscribers are counted before."""
        book = self._books.get(asked.dialect)
        if book is None:
            done(m.OK, [])
            return
        known = book

        def counted() -> None:
            def begin(_: int) -> None:
                names = _names(known, asked.application)
                best: list[Name] = []

                def some() -> bool:
                    nonlocal best
                    try:
                        part = list(islice(names, _LOOKED_AT))
                        fits = (name for name in part if name > asked.after and name[1].startswith(asked.prefix))
                        best = nsmallest(asked.limit, {*best, *fits})
                        if len(part) == _LOOKED_AT:
                            return True
                        rows = [known.row(*name) for name in best]
                    except Exception:  # a defect, which the turn logs; the next search begins all the same
                        decided()
                        done(m.FAILED)
                        raise
                    decided()
                    done(m.OK, rows)
                    return False

                self._turns.add(some)

            decided = self._searches.add(None, begin, 1)

        self._channels.when_counted(None, counted)

    # ------------------------------------------------------------------ one channel

    def _show(self, asked: OneChannel, answer: Answer) -> None:
        key, application = self._book(asked.dialect).address(asked.application, asked.channel)

        def looked(status: int, state: ChannelState | None = None) -> None:
            if status != m.OK or state is None:
                answer(refused(UNAVAILABLE, _NO_ANSWER))
            elif not state.exists:
                answer(refused(NOT_FOUND, f"{asked.dialect} has no channel {asked.channel!r} now"))
            else:
                answer(msgspec.to_builtins(state))

        self._operations.at(key, Look(asked.dialect, application, asked.channel), looked)

    def _look(self, key: bytes, asked: Look, done: Done) -> None:
        book = self._books.get(asked.dialect)
        if book is None:
            done(m.FAILED)
            return
        known = book

        def looked(state: ChannelState | None) -> None:
            done(m.FAILED if state is None else m.OK, state)

        def counted() -> None:
            known.look(key, asked.application, asked.channel, looked)

        self._channels.when_counted([key], counted)

    # ------------------------------------------------------------------ acts

    def _publish(self, asked: PublishEvent, answer: Answer) -> None:
        book = self._book(asked.dialect)
        _, application = book.address(asked.application, asked.channel)
        book.publish(application, asked.channel, asked.event, _outcome(answer))

    def _terminate(self, asked: TerminateUser, answer: Answer) -> None:
        dialect = asked.dialect
        if dialect == ANY:
            with_users = [name for name, book in self._books.items() if book.knows_users]
            if len(with_users) != 1:
                raise Refusal(NOT_FOUND, f"say of which dialect; with users are: {', '.join(with_users) or 'none'}")
            (dialect,) = with_users
        self._book(dialect).terminate(asked.application, asked.user, _outcome(answer))


def _outcome(answer: Answer) -> Callable[[int, str], None]:
    def done(status: int, text: str) -> None:
        if status < 300:
            answer({"status": status})
        else:
            answer(refused(UNAVAILABLE if status >= 500 else REFUSED, f"{status}: {text}"))

    return done


def _names(book: ChannelBook, application: str | None) -> Iterator[Name]:
    """Of an application, or of all (None)."""
    for one, channels in book.names():
        if application in (None, one):
            yield from ((one, channel) for channel in channels)


def _cursor(after: str) -> tuple[str, str, str]:
    """Dialect, application and channel that a page begins behind."""
    dialect, _, rest = after.partition("/")
    application, _, channel = rest.partition("/")
    return dialect, application, channel
