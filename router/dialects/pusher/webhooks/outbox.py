"""The events that wait for one webhook."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from router.common import logs
from router.common import messages as m
from router.common.position import LogSlice
from router.dialects.pusher.applications import App, Webhook
from router.dialects.pusher.protocol import PusherOptions

SPACE: Final = "pusher.webhook"
"""Space of the records with the position of each webhook, and the dialect in the addresses of their logs."""

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0


def address(app: App, hook: Webhook) -> bytes:
    """The address of a webhook's log. Who owns it sends the webhook's events."""
    return m.channel_key(SPACE, app.id, hook.url)


class _Waiting(NamedTuple):
    """One event: its offset in the log (0: it is not there), its expiry by the monotonic clock, and its JSON."""

    offset: int
    expires: float
    text: str


class Outbox:
    """The events that wait for one webhook, in order."""

    def __init__(
        self,
        app: App,
        hook: Webhook,
        options: PusherOptions,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self._monotonic = monotonic
        self._unix_time = unix_time
        self.app = app
        self.hook = hook
        self.log = address(app, hook)
        self.wake: Callable[[], None] = lambda: None
        self.sent = 0
        self.dropped = 0
        self._options = options
        self._waiting: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []
        self._body = b""
        self._since = 0.0  # when the batch was tried first
        self._tries = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._batch)

    def restore(self, position: int, part: LogSlice) -> None:
        """As the router starts: what the log holds behind the webhook's position."""
        if part.offset < position:
            position = 0  # the log began anew
        # What is here already came while it was read. So it is in the log, if it could be kept.
        here, self._waiting = self._waiting, deque()
        behind = self._monotonic() - self._unix_time()
        for event in part.events:
            if event.offset > position:
                self._put(_Waiting(event.offset, event.expires + behind, event.body))
        self._waiting.extend(waiting for waiting in here if not 0 < waiting.offset <= part.offset)

    def put(self, offset: int, text: str) -> None:
        """One more event."""
        self._put(_Waiting(offset, self._monotonic() + max(1, self._options.webhook_retry), text))

    def _put(self, waiting: _Waiting) -> None:
        if len(self) >= self._options.webhook_queue:
            self._drop(1, "too many events wait for it")
            return
        self._waiting.append(waiting)
        self.wake()

    def _drop(self, events: int, why: str) -> None:
        self.dropped += events
        logs.limited("webhook.dropped", app=self.app.id, url=self.hook.url, why=why)

    def take(self) -> bytes:
        """The body of the next request, the same one until it is taken or given up; empty if there is nothing."""
        if self._batch:
            return self._body
        now = self._monotonic()
        waiting = self._waiting
        before = len(waiting)
        while waiting and waiting[0].expires <= now:
            waiting.popleft()
        if len(waiting) < before:
            self._drop(before - len(waiting), "its server has failed for webhook_retry")
        if not waiting:
            return b""
        self._batch = [waiting.popleft() for _ in range(min(len(waiting), self._options.webhook_batch))]
        events = ",".join(event.text for event in self._batch)
        self._body = f'{{"time_ms":{int(self._unix_time() * 1000)},"events":[{events}]}}'.encode()
        self._since = now
        self._tries = 0
        return self._body

    def taken(self) -> int:
        """The webhook's server has the batch. Returns: its new position (0: not known)."""
        self.sent += len(self._batch)
        return self._done()

    def failed(self) -> tuple[float, int]:
        """The request failed. Returns: seconds until the next try, and 0; or 0 if it is given up, and the new
        position."""
        left = self._since + self._options.webhook_retry - self._monotonic()
        if left <= 0:
            self._drop(len(self._batch), "its server has failed for webhook_retry")
            return 0.0, self._done()
        wait = min(_FIRST_WAIT_S * 2.0**self._tries, _LONGEST_WAIT_S)
        self._tries += 1
        return min(wait, left), 0

    def _done(self) -> int:
        offset = max((event.offset for event in self._batch), default=0)
        self._batch = []
        self._body = b""
        return offset
