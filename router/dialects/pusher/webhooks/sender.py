"""Posts what the outboxes hold: the service that runs in the router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

from router import __version__
from router.common import logs
from router.common.options import Settings
from router.core.facades import Core
from router.dialects.pusher.applications import load
from router.dialects.pusher.protocol import NAME, PusherOptions
from router.dialects.pusher.signatures import body_signature
from router.dialects.pusher.webhooks.outbox import Outbox
from router.dialects.pusher.webhooks.policy import Webhooks

_TICK_S: Final = 0.1
_MAX_ANSWER_BYTES: Final = 65_536


def start(settings: Settings, core: Core, may_send: Callable[[], bool]) -> Sender:
    """Observe the dialect's channels, and read what still waits; it is sent by the sender's `run`.

    may_send: see `router.dialects.app_server.Context`. To be called once, before any worker joins. Raises: AppsError.
    """
    options = settings.get(PusherOptions)
    apps = load(options.apps, options.unsigned)
    webhooks = Webhooks(apps, options, core)
    if webhooks.needed:
        core.channels.observe(NAME, webhooks)
        webhooks.restore()
    return Sender(webhooks, options, may_send)


class Sender:
    """Posts what the outboxes hold, while it may."""

    def __init__(self, webhooks: Webhooks, options: PusherOptions, may_send: Callable[[], bool] = lambda: True) -> None:
        self._may_send = may_send
        self._webhooks = webhooks
        self._timeout = options.webhook_timeout
        self._limit = trio.CapacityLimiter(options.webhook_parallel)

    async def run(self) -> None:
        """Send until cancelled; returns at once if there is nothing to send."""
        if not self._webhooks.needed:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            if self._webhooks.outboxes:
                nursery.start_soon(self._send)

    async def _send(self) -> None:
        import httpx  # costs time and memory: only imported where it is needed

        async with (
            httpx.AsyncClient(timeout=self._timeout, follow_redirects=False) as client,
            trio.open_nursery() as nursery,
        ):
            for outbox in self._webhooks.outboxes:
                nursery.start_soon(self._serve, client, outbox)

    def counts(self) -> dict[str, int]:
        """What became of the events so far, of all webhooks together, as the spec names it."""
        outboxes, elsewhere = self._webhooks.outboxes, self._webhooks.elsewhere
        return {
            "webhooks_sent": sum(outbox.sent for outbox in outboxes),
            "webhooks_dropped": sum(box.dropped for box in outboxes) + sum(box.dropped for box in elsewhere),
            "webhooks_waiting": sum(map(len, outboxes)) + sum(map(len, elsewhere)),
        }

    def close(self) -> None:
        """The router is about to end: what is held back goes into the store."""
        self._webhooks.release()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(_TICK_S)
            try:
                self._webhooks.tick()
            except Exception as error:  # webhooks are no reason for the router to end
                logs.limited("webhook.tick_failed", at="error", per=type(error).__name__, exc=error)

    async def _serve(self, client: Any, outbox: Outbox) -> None:
        while True:
            body = outbox.take()
            if not body:
                awake = trio.Event()
                outbox.wake = awake.set
                await awake.wait()
                continue
            async with self._limit:
                if not self._may_send():
                    # Another router sends it, perhaps, and knows better by now than what is in it.
                    await trio.sleep(_TICK_S)
                    continue
                why = await self._post(client, outbox, body)
            if not why:
                self._webhooks.advance(outbox, outbox.taken())
                continue
            wait, offset = outbox.failed()
            logs.limited("webhook.failed", app=outbox.app.id, url=outbox.hook.url, why=why, again_s=round(wait, 1))
            self._webhooks.advance(outbox, offset)
            await trio.sleep(wait)

    async def _post(self, client: Any, outbox: Outbox, body: bytes) -> str:
        """Returns: why it failed; "" if it was taken."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"connection-farm/{__version__}",
            "X-Pusher-Key": outbox.app.key,
            "X-Pusher-Signature": body_signature(outbox.app.secret, body),
        }
        why = "no answer in time"
        with trio.move_on_after(self._timeout):
            try:
                async with client.stream("POST", outbox.hook.url, content=body, headers=headers) as response:
                    code = response.status_code
                    why = "" if 200 <= code < 300 else f"answered {code}"
                    size = 0
                    async for part in response.aiter_raw():  # read whole, its connection can be used again
                        size += len(part)
                        if size > _MAX_ANSWER_BYTES:
                            break
            except Exception as error:  # whatever a server or a library does, the router goes on
                why = why if not why else f"{type(error).__name__}: {error}"
        return why
