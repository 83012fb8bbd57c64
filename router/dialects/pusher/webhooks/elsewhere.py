"""The events for a webhook whose outbox another router owns, until that router has them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from router.common import logs
from router.common import messages as m
from router.core.operations import Operations
from router.dialects.pusher.applications import App, Webhook
from router.dialects.pusher.operations import HandOver
from router.dialects.pusher.protocol import PusherOptions
from router.dialects.pusher.webhooks.outbox import address

_AT_ONCE: Final = 200
"""Events in one operation."""
_AGAIN_S: Final = 1.0


class Elsewhere:
    """Hands events over in order, and once more until the owner of the outbox has kept them: one may come twice."""

    def __init__(
        self, app: App, hook: Webhook, options: PusherOptions, operations: Operations, monotonic: Callable[[], float]
    ) -> None:
        self.log = address(app, hook)
        self.dropped = 0
        self._app = app
        self._hook = hook
        self._options = options
        self._operations = operations
        self._monotonic = monotonic
        # Until when it is tried, its JSON, and what is called when it is kept.
        self._waiting: deque[tuple[float, str, Callable[[], None]]] = deque()
        self._under_way = 0  # the first so many are with the owner
        self._again_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, text: str, kept: Callable[[], None]) -> None:
        """One more event. kept: called when the owner has it; not if it is given up."""
        if len(self._waiting) >= self._options.webhook_queue:
            self._drop(1, "too many events wait for it")
            return
        self._waiting.append((self._monotonic() + max(1, self._options.webhook_retry), text, kept))
        self.tick()

    def tick(self) -> None:
        """To be called a few times a second: hand over what waits."""
        now = self._monotonic()
        waiting = self._waiting
        if self._under_way or not waiting or now < self._again_at:
            return
        before = len(waiting)
        while waiting and waiting[0][0] <= now:
            waiting.popleft()
        if len(waiting) < before:
            self._drop(before - len(waiting), "the router that sends to it was away for webhook_retry")
        texts = [text for _, text, _ in islice(waiting, _AT_ONCE)]
        if texts:
            self._under_way = len(texts)
            self._operations.at(self.log, HandOver(texts), self._handed)

    def _handed(self, status: int, reply: None = None) -> None:
        under_way, self._under_way = self._under_way, 0
        if status == m.OK:
            for _ in range(under_way):
                _, _, kept = self._waiting.popleft()
                kept()
            self.tick()
        else:
            self._again_at = self._monotonic() + _AGAIN_S

    def _drop(self, events: int, why: str) -> None:
        self.dropped += events
        logs.limited("webhook.dropped", app=self._app.id, url=self._hook.url, why=why)
