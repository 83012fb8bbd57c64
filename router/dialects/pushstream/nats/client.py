"""The client library of NATS, in a thread of its own: it needs an event loop of asyncio.

It takes a batch of messages, has it published by the router's thread, and acknowledges it; meanwhile no further one is
published. So what waits is bounded, and the order is kept: what the store refuses for now is tried again before what is
behind that batch. Of a stream no more is taken than may wait, and what is behind the batch is said to be in work, too,
or the server would send it again. What the router's thread gets is handed over there (`run_sync_soon`).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from router.dialects.pushstream.nats.options import NatsOptions, servers

_NAME: Final = "connection-farm"
_AGAIN_S: Final = 1.0
"""Until what the store refused is tried again."""
_RETRY_S: Final = 2
"""Until a connection, a stream or a consumer that failed is tried again."""
_LOOK_S: Final = 10.0
"""After so long without a message it is seen whether the consumer is still there."""
_ACK_WAIT_S: Final = 5.0
"""A message of a stream comes again after this time, unless it is acknowledged, or said to be in work, by then."""
_IN_WORK_S: Final = 1.0
"""How often that is said."""
_CONNECT_S: Final = 5
"""To connect may take so long."""
_PING_S: Final = 10
"""The server is pinged so often; one that answers none of three counts as away."""
_CLOSE_S: Final = 1.0


class Fate(enum.Enum):
    """What becomes of a message."""

    PUBLISHED = enum.auto()
    WRONG = enum.auto()
    """It is none, and will never be."""
    AGAIN = enum.auto()
    """It could not be published now."""


class State(enum.Enum):
    """What the client sends about itself."""

    CONNECTED = enum.auto()
    LOST = enum.auto()
    FAILED = enum.auto()
    DROPPED = enum.auto()
    """A message that there was no room for."""


class ConsumerError(Exception):
    """The stream's consumer cannot be used."""


Done = Callable[[Sequence[Fate]], None]
Take = Callable[[list[bytes], Done], None]
"""Publishes a batch, and calls back once with what became of each; both in the router's thread."""
Report = Callable[[State, str], None]


class QueueThread:
    """Takes messages until it is stopped. `take` and `report` are called in the thread of the token."""

    def __init__(
        self, options: NatsOptions, max_in_work: int, take: Take, report: Report, token: trio.lowlevel.TrioToken
    ) -> None:
        """max_in_work: messages of a stream that are taken and not acknowledged yet."""
        self._options = options
        self._max_in_work = max_in_work
        self._take = take
        self._report_there = report
        self._token = token
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump: asyncio.Task[None] | None = None
        self._busy = False
        self._behind: list[Any] = []  # of a stream, taken while a batch was in work
        self._stopping = asyncio.Event()
        self._stopped = False
        self.ended = trio.Event()
        threading.Thread(target=self._run, name="nats", daemon=True).start()

    def stop(self) -> None:
        """Take no more; what has been taken is finished, if it can be. To be called from the router's thread."""
        self._stopped = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._stopping.set()
        if self._pump is not None and not self._busy:
            self._pump.cancel()

    def _run(self) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            asyncio.run(self._main())
            self._token.run_sync_soon(self.ended.set)

    def _report(self, state: State, detail: str = "") -> None:
        self._token.run_sync_soon(self._report_there, state, detail)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopped:
            return
        while not self._stopping.is_set():
            self._pump = asyncio.create_task(self._serve())
            try:
                await self._pump
            except asyncio.CancelledError:
                return
            except trio.RunFinishedError:
                raise
            except Exception as error:  # of very many kinds: the server's, the library's, the socket's
                self._report(State.FAILED, _text(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RETRY_S)

    async def _serve(self) -> None:
        """Connect, subscribe, and take messages. Once connected the library reconnects by itself."""
        from nats.aio.client import Client
        from nats.errors import SlowConsumerError

        async def failed(error: Exception) -> None:
            if isinstance(error, SlowConsumerError):
                self._report(State.DROPPED)
            else:
                self._report(State.FAILED, _text(error))

        async def lost() -> None:
            self._report(State.LOST)

        async def back() -> None:
            self._report(State.CONNECTED)

        client = Client()
        try:
            await client.connect(
                servers=servers(self._options.url),
                name=_NAME,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RETRY_S,
                connect_timeout=_CONNECT_S,
                ping_interval=_PING_S,
                max_outstanding_pings=2,
                error_cb=failed,
                disconnected_cb=lost,
                reconnected_cb=back,
            )
            subscription = await self._subscribed(client)
            self._report(State.CONNECTED)
            await self._take_all(subscription)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), _CLOSE_S)

    async def _subscribed(self, client: Any) -> Any:
        options = self._options
        if not options.stream:
            return await client.subscribe(
                options.subject,
                pending_msgs_limit=options.max_waiting,
                pending_bytes_limit=options.max_waiting_bytes,
            )
        jetstream = client.jetstream()
        config = await self._consumer(jetstream)
        return await jetstream.subscribe(
            options.subject,
            stream=options.stream,
            durable=options.durable,
            config=config,
            manual_ack=True,
            # The server sends no more than max_ack_pending; what were dropped here would come again out of order.
            pending_msgs_limit=0,
            pending_bytes_limit=0,
        )

    async def _consumer(self, jetstream: Any) -> Any:
        """What the consumer is to be like. One that is there already is changed to that: the library takes it as it is.

        Raises: ConsumerError if it is for something else.
        """
        from nats.js.api import AckPolicy, ConsumerConfig
        from nats.js.errors import NotFoundError

        options = self._options
        limits: dict[str, Any] = {"ack_wait": _ACK_WAIT_S, "max_ack_pending": self._max_in_work}
        try:
            found = (await jetstream.consumer_info(options.stream, options.durable)).config
        except NotFoundError:
            return ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, **limits)
        subjects = found.filter_subjects or [found.filter_subject or options.subject]
        if subjects != [options.subject] or found.ack_policy != AckPolicy.EXPLICIT or not found.deliver_subject:
            raise ConsumerError(
                f"the consumer {options.durable} is there already, for {', '.join(subjects)}, and is not as this needs "
                "it (a push consumer with explicit acknowledgement): give nats.durable another name, or delete it"
            )
        if any(getattr(found, name) != value for name, value in limits.items()):
            await jetstream.add_consumer(options.stream, found.evolve(**limits))
        return found

    async def _take_all(self, subscription: Any) -> None:
        self._behind = []
        while not self._stopping.is_set():
            batch, self._behind = self._behind, []
            if not batch:
                try:
                    batch.append(await subscription.next_msg(timeout=_LOOK_S))
                except TimeoutError:
                    if self._options.stream:
                        await subscription.consumer_info()
                    continue
            await self._take_waiting(subscription, batch)
            self._busy = True
            try:
                await self._publish(subscription, batch)
            finally:
                self._busy = False

    async def _take_waiting(self, subscription: Any, taken: list[Any]) -> None:
        """What has come already, and there is room for, without waiting for more."""
        while subscription.pending_msgs and len(taken) < self._options.max_waiting:
            taken.append(await subscription.next_msg(timeout=_LOOK_S))

    async def _publish(self, subscription: Any, batch: list[Any]) -> None:
        acknowledged = bool(self._options.stream)
        while batch:
            fates = asyncio.ensure_future(self._fates([message.data for message in batch]))
            while not (await asyncio.wait((fates,), timeout=_IN_WORK_S))[0]:
                await self._in_work(subscription, batch)
            again = []
            for message, fate in zip(batch, fates.result(), strict=True):
                if fate is Fate.AGAIN:
                    again.append(message)
                elif acknowledged:
                    await (message.ack() if fate is Fate.PUBLISHED else message.term())
            batch = again
            if batch and self._stopping.is_set():
                return
            if batch:
                await self._in_work(subscription, batch)
                await asyncio.sleep(_AGAIN_S)

    async def _in_work(self, subscription: Any, batch: list[Any]) -> None:
        if self._options.stream:
            await self._take_waiting(subscription, self._behind)
            for message in (*batch, *self._behind):
                await message.in_progress()

    async def _fates(self, bodies: list[bytes]) -> Sequence[Fate]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[Fate]] = loop.create_future()

        def set_found(fates: Sequence[Fate]) -> None:
            if not found.done():
                found.set_result(fates)

        def done(fates: Sequence[Fate]) -> None:
            with contextlib.suppress(RuntimeError):  # the thread has ended
                loop.call_soon_threadsafe(set_found, fates)

        self._token.run_sync_soon(self._take, bodies, done)
        return await found


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
