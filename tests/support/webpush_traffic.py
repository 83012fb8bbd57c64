"""WebPush devices and application servers that go on while something is done to their farm."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import trio
import trio_websocket

from support.dialects import known
from support.farm_fixture import PATIENCE_S, SOON_S, Farm, Json, in_thread, new_channel, soon
from support.webpush import body_of

DEVICES = 24
CHANNELS = 2
PUSHERS = 3
CRASH = known({"simplepush.hello_timeout": 0}) | {
    "link.lease": 2,
    "farm.restart_max": 0.1,  # what is killed often is started again as fast as what is killed once
    "webpush.hello_timeout": 0,  # a hello without an answer must not be helped by its deadline
    "store.inbox_limit": 100_000,  # nothing may be evicted here
    "store.inbox_bytes": 33_554_432,
}


@dataclass
class Subscription:
    """One channel, and what was accepted for it."""

    channel: str
    endpoint: str
    accepted: set[str] = field(default_factory=set)
    """The texts that were answered 201."""


class Page:
    """A device on trio-websocket that connects again whenever it has lost its connection."""

    def __init__(self, farm: Farm, acks: bool) -> None:
        self._farm = farm
        self.acks = acks
        self.uaid = ""
        self.subscriptions: dict[str, Subscription] = {}
        self.received: dict[str, set[str]] = {}
        self.online = False
        self.connections = 0
        self.doing = ""

    @property
    def missing(self) -> list[tuple[str, set[str]]]:
        """What was accepted and has not been received."""
        found = [(c, s.accepted - self.received.get(c, set())) for c, s in self.subscriptions.items()]
        return [(channel, texts) for channel, texts in found if texts]

    async def live(self) -> None:
        """Connect, listen, connect again."""
        while True:
            await self._connection(self._listen)
            await trio.sleep(0.05)

    async def drain(self) -> None:
        """Send hello again and acknowledge everything, until all has been received; then nothing may be left."""
        self.acks = True
        await self._connection(self._until_complete)
        await self._connection(self._until_settled)

    async def _connection(self, conversation: Callable[[Any, set[str]], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            self.doing = "connects"
            try:
                socket = await trio_websocket.connect_websocket_url(nursery, self._farm.device_url)
            except (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as refused:
                self.doing = f"is refused: {refused!r}"
                return
            self.doing = "waits for the reply to its hello"
            try:
                hello = {"messageType": "hello", "uaid": self.uaid, "broadcasts": {}, "use_webpush": True}
                await socket.send_message(json.dumps(hello))
                reply = json.loads(await socket.get_message())
                assert reply["status"] == 200, reply
                assert self.uaid in ("", reply["uaid"]), "the farm has forgotten a device"
                self.connections += 1
                self.online = True
                self.doing = "registers, or listens"
                seen: set[str] = set()
                for _ in range(CHANNELS - len(self.subscriptions)):
                    await self._register(socket, seen, reply["uaid"])
                await conversation(socket, seen)
            except trio_websocket.ConnectionClosed:
                pass
            finally:
                self.online = False
                self.doing = "closes"
                with trio.move_on_after(2) as scope:
                    scope.shield = True
                    await socket.aclose()
                nursery.cancel_scope.cancel()

    async def _register(self, socket: Any, seen: set[str], uaid: str) -> None:
        reply = await self._ask(socket, seen, messageType="register", channelID=new_channel())
        assert reply["status"] == 200, reply
        # Known from its first registration on: a uaid that has none may be replaced.
        self.uaid = uaid
        channel = reply["channelID"]
        self.subscriptions[channel] = Subscription(channel, reply["pushEndpoint"])

    async def _ask(self, socket: Any, seen: set[str], **command: Any) -> Json:
        await socket.send_message(json.dumps(command))
        while (message := json.loads(await socket.get_message()))["messageType"] == "notification":
            await self._note(socket, seen, message)
        return dict(message)

    async def _note(self, socket: Any, seen: set[str], note: Json) -> None:
        assert note["version"] not in seen, "twice on one connection"
        seen.add(note["version"])
        self.received.setdefault(note["channelID"], set()).add(body_of(note))
        if self.acks:
            update = {"channelID": note["channelID"], "version": note["version"], "code": 100}
            await socket.send_message(json.dumps({"messageType": "ack", "updates": [update]}))

    async def _listen(self, socket: Any, seen: set[str]) -> None:
        while True:
            await self._note(socket, seen, json.loads(await socket.get_message()))

    async def _until_complete(self, socket: Any, seen: set[str]) -> None:
        with trio.fail_after(SOON_S):
            # Whatever may come after the last that is missing, is acknowledged too.
            while self.missing:
                await self._note(socket, seen, json.loads(await socket.get_message()))
            while True:
                before = len(seen)
                reply = await self._ask(socket, seen, messageType="unregister", channelID=new_channel())
                assert reply["status"] == 200, reply
                if len(seen) == before:
                    return

    async def _until_settled(self, socket: Any, seen: set[str]) -> None:
        await self._ask(socket, seen, messageType="unregister", channelID=new_channel())
        assert not seen, "what was acknowledged came again"


class Traffic:
    """Devices and senders, and what was answered 201."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._stop = threading.Event()
        # Most acknowledge; one in eight does so only in the end.
        self.pages = [Page(farm, acks=number % 8 != 0) for number in range(DEVICES)]
        self._senders: list[threading.Thread] = []
        self._faults: list[str] = []

    def _push(self, subscriptions: list[Subscription]) -> None:
        connection: http.client.HTTPConnection | None = None
        number = 0
        headers = {"TTL": "86400", "Content-Encoding": "aes128gcm"}
        while not self._stop.is_set():
            number += 1
            for subscription in subscriptions:
                text = f"{number}"
                try:
                    if connection is None:
                        connection = http.client.HTTPConnection("127.0.0.1", self._farm.router_port, timeout=PATIENCE_S)
                    connection.request("POST", urlsplit(subscription.endpoint).path, text.encode(), headers)
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException):
                    if connection is not None:
                        connection.close()
                    connection = None
                    time.sleep(0.05)
                    continue
                if answer.status == 201:
                    subscription.accepted.add(text)
                elif answer.status != 503:
                    self._faults.append(f"{answer.status} {subscription.endpoint}")
                time.sleep(0.002)
        if connection is not None:
            connection.close()

    def _away(self) -> dict[int, tuple[str, int]]:
        """Of the pages that are not connected, or have not all channels: what they do, and how often they connected."""
        return {
            number: (page.doing, page.connections)
            for number, page in enumerate(self.pages)
            if not page.online or len(page.subscriptions) < CHANNELS
        }

    async def pushes_arrive(self) -> None:
        """Wait until every device that acknowledges has received something new on every channel."""
        await soon(lambda: not self._away(), "all are connected", self._away)
        pages = [page for page in self.pages if page.acks]
        before = {channel: len(page.received.get(channel, ())) for page in pages for channel in page.subscriptions}

        def waiting() -> list[str]:
            return [c for page in pages for c in page.subscriptions if len(page.received.get(c, ())) <= before[c]]

        await soon(lambda: not waiting(), "every device receives something new", waiting)

    async def run(self, act: Callable[[Traffic], Awaitable[None]]) -> None:
        """Do something under traffic, and check what was received in the end."""
        try:
            async with trio.open_nursery() as nursery:
                for page in self.pages:
                    nursery.start_soon(page.live)
                await soon(lambda: not self._away(), "all have subscribed", self._away)
                every = [s for page in self.pages for s in page.subscriptions.values()]
                for number in range(PUSHERS):
                    thread = threading.Thread(target=self._push, args=(every[number::PUSHERS],))
                    self._senders.append(thread)
                    thread.start()
                await self.pushes_arrive()
                await act(self)
                await self.pushes_arrive()
                await in_thread(self._hang_up)
                here = [page for page in self.pages if page.acks]
                await soon(lambda: not any(page.missing for page in here), "everything is received without a reconnect")
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                for page in self.pages:
                    nursery.start_soon(page.drain)
        finally:
            self._hang_up()
        assert not self._faults
        assert not [page.missing for page in self.pages if page.missing]

    def _hang_up(self) -> None:
        self._stop.set()
        for thread in self._senders:
            thread.join()
