"""Asks the main server over HTTP. Connections to it are reused; nothing of one answer goes into another question."""

from __future__ import annotations

import math
import os
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from router.auth import http
from router.auth.connections import Connections
from router.auth.questions import LATE, Question, Questions
from router.common import logs
from router.common import messages as m
from router.common.auth_settings import AuthOptions, auth_url
from router.common.guard import guarded
from router.common.metrics import RouterCounters
from router.common.options import Settings
from router.common.refusals import NOT_ASKED, UNUSABLE

if TYPE_CHECKING:
    import httpx

_TICK_S: Final = 1.0
_KEPT_S: Final = 4.0
"""So long an idle connection is kept: less than the 5 s after which many servers close theirs, so that a question
seldom meets a connection that is being closed."""
_NO_ANSWER: Final = m.Verdict(NOT_ASKED.status, body=NOT_ASKED.text.encode())
_NOT_USABLE: Final = m.Verdict(UNUSABLE.status, body=UNUSABLE.text.encode())


class MainServer:
    """The main servers of all dialects, one for each URL in the settings."""

    def __init__(self, settings: Settings, counters: RouterCounters) -> None:
        self._options = options = settings.get(AuthOptions)
        self._wanted = any(auth_url(settings, section.SECTION) for section in settings)
        self.questions = Questions(partial(auth_url, settings), options, counters, time.monotonic, os.urandom(16))

    def counts(self) -> dict[str, int]:
        """The numbers that are no counters."""
        return {"auth_waiting": self.questions.waiting}

    async def run(self, flush: Callable[[], None]) -> None:
        """Ask until cancelled; returns at once if no main server is set. flush: sends workers what they wait for."""
        if not self._wanted:
            return
        import httpx  # which takes its time and memory: not without need

        tls = ssl.create_default_context()
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEPT_S)
        # Not a client: that would keep cookies of one answer for the next question, and read the environment.
        connections = Connections(partial(httpx.AsyncHTTPTransport, verify=tls, limits=limits, trust_env=False))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick, connections, flush)
                while True:
                    while (question := self.questions.take()) is not None:
                        nursery.start_soon(self._ask, connections, question, flush)
                    awake = trio.Event()
                    self.questions.wake = awake.set
                    await awake.wait()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _TICK_S):
                await connections.close_idle(math.inf)

    async def _tick(self, connections: Connections[httpx.AsyncHTTPTransport], flush: Callable[[], None]) -> None:
        while True:
            await trio.sleep(_TICK_S)
            self.questions.tick()
            guarded("router.flush_failed", flush)
            await connections.close_idle(time.monotonic() - _KEPT_S)

    async def _ask(
        self, connections: Connections[httpx.AsyncHTTPTransport], question: Question, flush: Callable[[], None]
    ) -> None:
        verdict, why = LATE, "no answer in time"
        transport = connections.take(question.url)
        with trio.move_on_at(trio.current_time() + question.deadline - time.monotonic()):
            try:
                verdict, why = await self._asked(transport, question), ""
            except http.Unusable as error:
                verdict, why = _NOT_USABLE, str(error)
            except Exception as error:  # whatever a server or a library does, the router goes on
                verdict, why = _NO_ANSWER, _text(error)
        connections.give(question.url, transport, time.monotonic())
        if why:
            # Without its query, which may hold a secret.
            url = question.url.partition("?")[0]
            logs.limited("auth.undecided", per=url, url=url, why=why, hint="clients are refused until it answers")
        self.questions.answered(question, verdict)
        self.questions.wake()
        guarded("router.flush_failed", flush)

    async def _asked(self, transport: httpx.AsyncHTTPTransport, question: Question) -> m.Verdict:
        import httpx

        request = http.request(question.asked, self._options.method)
        made: Any = httpx.Request(request.method, question.url, headers=request.headers, content=request.body)
        try:
            return await self._answer(transport, made)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # The server has closed a connection while it was taken for the question.
            if question.asked.action == m.PUBLISH:
                raise
            return await self._answer(transport, made)

    async def _answer(self, transport: httpx.AsyncHTTPTransport, request: Any) -> m.Verdict:
        """Raises: Unusable; an httpx error."""
        most = self._options.max_answer_bytes
        response = await transport.handle_async_request(request)
        try:
            body = b""
            async for part in response.stream:  # type: ignore[union-attr]
                body += part
                if len(body) > most:
                    raise http.Unusable(f"its body has more than auth.max_answer_bytes = {most}")
        finally:
            await response.aclose()
        return http.verdict(response.status_code, response.headers.raw, body)


def _text(error: Exception) -> str:
    """An error for the log. What is wrong with a question is left out, as it would show what the client has sent."""
    import httpx

    if isinstance(error, httpx.LocalProtocolError | ValueError):
        return type(error).__name__
    return http.reason(error)
