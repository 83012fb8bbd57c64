"""A TCP relay in front of a server: it can hold what clients send, and deliver it later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import trio


class Relay:
    """Relays connections to a port of loopback for as long as `run` does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = trio.Event()
        self._open.set()
        self._holding = 0
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve. The port is known when it has started."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    def hold(self) -> None:
        """Of the connections that there are, nothing is passed on to the server from now on."""
        self._open = trio.Event()
        self._holding += 1

    def release(self) -> None:
        """All that was held is passed on, though its client has gone."""
        self._open.set()

    async def _serve(self, client: trio.SocketStream) -> None:
        generation = self._holding
        server = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in server:
                        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                            await client.send_all(data)

            nursery.start_soon(answer)
            with suppress(trio.BrokenResourceError):
                async for data in client:
                    if generation < self._holding:
                        await self._open.wait()
                    await server.send_all(data)
                    await trio.lowlevel.checkpoint()
            if generation < self._holding:
                await self._open.wait()
            await server.send_eof()


@contextmanager
def relaying(port: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """A relay in front of this port, beside a test that has no tasks. Gives its port, and its `hold`."""
    relay, began = Relay(port), threading.Event()
    found: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            found.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            began.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    began.wait()
    ((token, scope),) = found
    try:
        yield relay.port, lambda: trio.from_thread.run_sync(relay.hold, trio_token=token)
    finally:
        trio.from_thread.run_sync(scope.cancel, trio_token=token)
        thread.join()
