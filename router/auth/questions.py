"""The questions to the main server: which wait, which are under way, and which answers are remembered. Pure.

Requests that ask the same share a question and its answer. What is the same is decided by all of what is asked, the
secrets in it, and the URL; of that only a keyed hash is kept. A message to be published is always asked on its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import msgspec

from router.common import logs
from router.common import messages as m
from router.common.auth_settings import AuthOptions
from router.common.metrics import RouterCounters
from router.common.refusals import NOT_ANSWERED, NOT_ASKED

Reply = Callable[[int, m.Verdict | None], None]
"""Gets the status of a reply on the link, and the verdict."""
Asker = tuple[object, int]
"""A worker that has joined, and the number of its call."""

_OVERHEAD: Final = 500
"""Bytes of a question, or of an answer that is remembered, beside its texts."""
FULL: Final = m.Verdict(NOT_ASKED.status, body=b"too many wait to be authorised: auth.max_waiting")
LATE: Final = m.Verdict(NOT_ANSWERED.status, body=NOT_ANSWERED.text.encode())
_pack: Final = msgspec.msgpack.Encoder().encode


class Question:
    """One question, and the requests that wait for its answer."""

    __slots__ = ("asked", "deadline", "key", "replies", "size", "url")

    def __init__(self, url: str, asked: m.Authorise, key: bytes, size: int, deadline: float) -> None:
        self.url = url
        self.asked = asked
        self.key = key
        """b"": it is asked on its own."""
        self.size = size
        self.deadline = deadline
        self.replies: dict[Asker, Reply] = {}


class Questions:
    """All of them."""

    def __init__(
        self,
        url_of: Callable[[str], str],
        options: AuthOptions,
        counters: RouterCounters,
        monotonic: Callable[[], float],
        secret: bytes,
    ) -> None:
        """url_of: what is asked for a dialect; "": no main server is. secret: the key of the hashes."""
        self._url_of = url_of
        self._options = options
        self._counters = counters
        self._monotonic = monotonic
        self._secret = secret
        self._waiting: OrderedDict[Question, None] = OrderedDict()
        self._under_way = 0
        self._open: dict[bytes, Question] = {}  # that others may join, waiting or under way
        self._bytes = 0  # of all that wait or are under way
        self._askers: dict[Asker, Question] = {}  # the requests that wait for an answer
        self._remembered: dict[bytes, tuple[float, float, m.Verdict, int]] = {}  # since, until, what, its size
        self._remembered_bytes = 0
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something to take."""

    # ------------------------------------------------------------------ what workers ask

    def ask(self, asked: m.Authorise, asker: Asker, reply: Reply) -> None:
        """A worker asks this."""
        if asker in self._askers:  # it has joined again, and repeats what is not confirmed
            return
        url = self._url_of(asked.dialect)
        if not url:
            reply(m.FAILED, None)
            return
        packed = _pack((url, asked))
        key = b"" if asked.action == m.PUBLISH else blake2b(packed, key=self._secret, digest_size=16).digest()
        now = self._monotonic()
        if asked.action == m.CONNECT and (known := self._recall(key, now)) is not None:
            self._counters.auth_remembered += 1
            self._answer(reply, known)
            return
        question = self._open.get(key) if key else None
        size = len(packed) + _OVERHEAD
        if len(self._askers) >= self._options.max_waiting or (
            question is None and self._bytes + size > self._options.max_waiting_bytes
        ):
            logs.limited("auth.full", waiting=len(self._askers), hint="auth.max_waiting, auth.max_waiting_bytes")
            self._answer(reply, FULL)
            return
        if question is not None:
            self._counters.auth_remembered += 1
            self._join(question, asker, reply)
            return
        question = Question(url, asked, key, size, now + self._options.timeout)
        self._join(question, asker, reply)
        self._bytes += size
        if key:
            self._open[key] = question
        self._waiting[question] = None
        self.wake()

    def _join(self, question: Question, asker: Asker, reply: Reply) -> None:
        question.replies[asker] = reply
        self._askers[asker] = question

    def withdraw(self, asker: Asker) -> None:
        """The answer is not waited for any more. A question that only this request waits for is not put, unless the
        main server has it already."""
        question = self._askers.pop(asker, None)
        if question is None:
            return
        del question.replies[asker]
        if not question.replies and question in self._waiting:
            del self._waiting[question]
            self._close(question)

    def lost(self, worker: object) -> None:
        """A worker waits for no answer any more: what it still wants it asks again once it has joined again."""
        for asker in [asker for asker in self._askers if asker[0] is worker]:
            self.withdraw(asker)

    def _answer(self, reply: Reply, verdict: m.Verdict) -> None:
        counters = self._counters
        if verdict.allowed:
            counters.auth_allowed += 1
        elif verdict.undecided:
            counters.auth_undecided += 1
        else:
            counters.auth_refused += 1
        reply(m.OK, verdict)

    # ------------------------------------------------------------------ what the main server is asked

    def take(self) -> Question | None:
        """The next question; None: there is none, or as many as may be are under way."""
        self._give_up(self._monotonic())
        if not self._waiting or self._under_way >= self._options.max_questions:
            return None
        self._under_way += 1
        self._counters.auth_asked += 1
        return self._waiting.popitem(last=False)[0]

    def _give_up(self, now: float) -> None:
        while self._waiting and (question := next(iter(self._waiting))).deadline <= now:
            del self._waiting[question]
            self._end(question, LATE)

    def answered(self, question: Question, verdict: m.Verdict) -> None:
        """A question that was taken has this answer."""
        self._under_way -= 1
        if question.asked.action == m.CONNECT:
            self._remember(question.key, verdict)
        self._end(question, verdict)

    def _end(self, question: Question, verdict: m.Verdict) -> None:
        self._close(question)
        for asker, reply in question.replies.items():
            del self._askers[asker]
            self._answer(reply, verdict)

    def _close(self, question: Question) -> None:
        self._bytes -= question.size
        if question.key:
            del self._open[question.key]

    @property
    def waiting(self) -> int:
        """Requests that wait for an answer."""
        return len(self._askers)

    # ------------------------------------------------------------------ answers that are remembered

    def _recall(self, key: bytes, now: float) -> m.Verdict | None:
        found = self._remembered.get(key)
        if found is None:
            return None
        since, until, verdict, _ = found
        if until <= now:
            self._forget(key)
            return None
        # What was granted ends when it would have ended.
        left = max(1, verdict.expires - int(now - since)) if verdict.expires else 0
        return verdict if left == verdict.expires else msgspec.structs.replace(verdict, expires=left)

    def _remember(self, key: bytes, verdict: m.Verdict) -> None:
        options = self._options
        if verdict.undecided:
            return
        seconds = options.cache if verdict.allowed else options.cache_refusals
        if verdict.expires:
            seconds = min(seconds, verdict.expires)
        if not seconds:
            return
        size = len(_pack(verdict)) + _OVERHEAD
        now = self._monotonic()
        if key in self._remembered:
            self._forget(key)
        self._remembered[key] = (now, now + seconds, verdict, size)
        self._remembered_bytes += size
        while len(self._remembered) > options.cache_entries or self._remembered_bytes > options.cache_bytes:
            self._forget(next(iter(self._remembered)))

    def _forget(self, key: bytes) -> None:
        self._remembered_bytes -= self._remembered.pop(key)[3]

    def tick(self) -> None:
        """To be called now and then: answer those that have waited for too long, and forget what was remembered for
        long enough."""
        now = self._monotonic()
        self._give_up(now)
        while self._remembered and self._remembered[key := next(iter(self._remembered))][1] <= now:
            self._forget(key)
