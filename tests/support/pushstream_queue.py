"""A NATS server, and a publisher of notifications by its own client library."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
from nats.js.api import StreamConfig

from bench.machine.ports import free_ports
from support.farm_fixture import PATIENCE_S, until
from support.installed import find_program

SUBJECT = "notification"
STREAM = "NOTIFICATIONS"
DURABLE = "connection-farm"


class NatsServer:
    """With JetStream, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            find_program("nats-server"),
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-js",
            "-sd",
            str(self._folder),
        ]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(self._ready, "the NATS server listens")

    def _ready(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It hangs for the time of the block, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def make_stream(self) -> None:
        async def make() -> None:
            client = await nats.connect(self.url)
            await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=[SUBJECT]))
            await client.close()

        asyncio.run(make())

    def max_ack_pending(self) -> int | None:
        """Of the consumer that the farm has made."""

        async def look() -> int | None:
            client = await nats.connect(self.url)
            found = await client.jetstream().consumer_info(STREAM, DURABLE)
            await client.close()
            held: int | None = found.config.max_ack_pending
            return held

        return asyncio.run(look())

    def publish(self, bodies: Iterable[bytes], stored: bool = False) -> None:
        """stored: have each acknowledged by the stream."""

        async def publish() -> None:
            client = await nats.connect(self.url)
            for body in bodies:
                if stored:
                    await client.jetstream().publish(SUBJECT, body)
                else:
                    await client.publish(SUBJECT, body)
            await client.flush()
            await client.close()

        asyncio.run(publish())


@contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    server = NatsServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
