"""A worker's end of the link: one DEALER socket; batches are kept until the router says that they are durable.

When the router is another one, or has forgotten us, everything unconfirmed is said again, and then all that we hold.
So nothing a device was promised depends on one router's life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import monotonic
from typing import Any

import zmq

from router import logs
from router import vocabulary as v
from router.settings import LinkOptions

_SEND_HIGH_WATER = 10_000
_NOBLOCK = int(zmq.NOBLOCK)  # a plain integer: pyzmq's enum costs more than the call
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_PUMP_S = 0.02
"""So long the router is heard without end, while it says much: then devices and the clock have a turn."""
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 500


class WorkerLink:
    """Collects words, sends them as batches, hands over the words of the router.

    `heard` is called with the words of each message. When the router has said WELCOME, `held` gives the device keys
    that are attached and answered, and then `channels` what HOLD_CHANNELS is to announce, word by word.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        where: str,
        options: LinkOptions,
        shard: int,
        incarnation: bytes,
        pid: int,
        heard: Callable[[list[Any]], None],
        held: Callable[[], Iterable[bytes]],
        channels: Callable[[], Iterable[list[list[Any]]]] = tuple,
    ) -> None:
        self._options = options
        self._join_message = v.pack([v.JOIN, v.PROTOCOL, shard, incarnation, pid])
        self._heard = heard
        self._held = held
        self._channels = channels
        self.words: list[Any] = []  # always this list: whoever says something appends to it
        self.joined = False
        self.behind = False
        """Whether there may be more to hear. The descriptor does not tell of what came before."""
        self._joining = False
        self._sequence = 0
        self._announced = 0  # the batch with the last HOLD
        self._unconfirmed: deque[tuple[int, bytes]] = deque()
        self._unsent: deque[bytes] = deque()
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, b"w" + incarnation)
        self._socket.setsockopt(zmq.SNDHWM, _SEND_HIGH_WATER)
        self._socket.setsockopt(zmq.RCVHWM, _SEND_HIGH_WATER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, options.max_message_bytes)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self._socket.connect(where)
        self.fileno: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self._join()

    @property
    def unconfirmed(self) -> int:
        """Batches that the router has not confirmed."""
        return len(self._unconfirmed)

    @property
    def saturated(self) -> bool:
        """Whether devices must not say more: too much is unconfirmed, or the router looks up what waits for them.

        An ack that is said while it looks would cross with the item on its way here, which would go out again.
        """
        unconfirmed = self._unconfirmed
        if not unconfirmed:
            return False
        return len(unconfirmed) >= self._options.max_unconfirmed or (
            self.joined and unconfirmed[0][0] <= self._announced
        )

    def pump(self) -> None:
        """Send what there is, then hear what there is, until neither is left or time is up: then we are `behind`."""
        self._send()
        until = monotonic() + _PUMP_S
        while self._receive(until):
            self._send()
            if self.behind:
                return

    def _send(self) -> None:
        if self.words:
            self._enqueue(self.words)
            self.words.clear()
        while self._unsent:
            try:
                self._socket.send(self._unsent[0], _NOBLOCK)
            except zmq.Again:
                return
            self._unsent.popleft()

    def _enqueue(self, words: list[Any]) -> None:
        self._sequence += 1
        batch = v.pack([v.BATCH, self._sequence, words])
        self._unconfirmed.append((self._sequence, batch))
        # Until WELCOME there goes nothing but JOIN, perhaps twice: a batch between the two would be heard in a lease
        # that ends with the second, and make the older ones that are repeated after it look like old news.
        if self.joined:
            self._unsent.append(batch)

    def _receive(self, until: float) -> bool:
        heard = self.behind = False
        # Asked before each receive, because an exception for "nothing there" costs more than the question.
        while self._socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            data = self._socket.recv(_NOBLOCK)
            heard = True
            try:
                self._message(v.unpack(data, self._options.max_message_bytes))
            except (v.VocabularyError, ValueError, TypeError, IndexError) as error:
                logs.error("link.not_understood", error, peer="router")
            if monotonic() >= until:
                self.behind = True
                break
        return heard

    def _message(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == v.WORDS:
            confirmed = message[1]
            unconfirmed = self._unconfirmed
            while unconfirmed and unconfirmed[0][0] <= confirmed:
                unconfirmed.popleft()
            if message[2]:
                self._heard(message[2])
        elif kind == v.REJOIN:
            if not self._joining:
                self._join()
        elif kind == v.WELCOME:
            if self._joining:  # a JOIN that was said twice is answered twice
                self._welcome()
        else:
            raise v.VocabularyError(f"unknown message {kind!r}")

    def _join(self) -> None:
        self._joining = True
        self.joined = False
        self._unsent.clear()
        self._unsent.append(self._join_message)

    def _welcome(self) -> None:
        self._joining = False
        self.joined = True
        # First what was said and not confirmed, acks among it; then what is held: the router answers that with
        # what waits in the store, which must not be what was acknowledged already.
        self._unsent.clear()
        self._unsent.extend(batch for _, batch in self._unconfirmed)
        if self.words:
            self._enqueue(self.words)
            self.words.clear()
        held = self._held()
        for channels in self._channels():  # first, because that is done at once
            self._enqueue([(v.HOLD_CHANNELS, channels)])
        for keys in _chunks(held):
            self._enqueue([(v.HOLD, keys)])
            self._announced = self._sequence

    def beat(self, snapshot: dict[str, float]) -> None:
        """Tell the router that we live. Not kept: the next one says it again."""
        if not self._unsent and not self._joining:
            self._unsent.append(v.pack([v.BEAT, snapshot]))
        elif self._joining and not self._unsent:
            # The JOIN, or its answer, was lost with a router.
            self._unsent.append(self._join_message)

    def close(self) -> None:
        """Close; what is queued has a second to leave."""
        self._send()
        self._socket.close()


def _chunks(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(list(keys))
    while chunk := list(islice(rest, v.HOLD_CHUNK)):
        yield chunk
