"""A worker's end of the link: one DEALER socket; batches are kept until the router says that they are durable.

When the router is another one, or has forgotten us, everything unconfirmed is said again, and then all that we hold.
So nothing a device was promised depends on one router's life.

Acknowledgements that the store could not keep are said again until it can; until then what they are of is not handed
over when a router reads it from the store: the device has had it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic
from typing import Any

import zmq

from router.common import logs, shapes
from router.common import messages as v
from router.common.settings import LinkOptions

_NOBLOCK = int(zmq.NOBLOCK)  # a plain integer: pyzmq's enum costs more than the call
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_RCVMORE = int(zmq.RCVMORE)
_PUMP_S = 0.02
"""So long the router is heard without end, while it says much: then devices and the clock have a turn."""
_ACKS_AGAIN = 1000
"""So many acknowledgements that the store could not keep are said again at a time."""
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 500


class WorkerLink:
    """Collects words, sends them as batches, hands over the words of the router.

    `heard` is called with the words of each message. When the router has said WELCOME, `held` gives the devices that
    are attached and answered, as ANNOUNCE has them, and then `channels` what ANNOUNCE_CHANNELS is to announce.
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
        held: Callable[[], Iterable[tuple[list[bytes], list[tuple[int, int]]]]],
        channels: Callable[[], Iterable[list[list[Any]]]] = tuple,
    ) -> None:
        self._options = options
        self._join_message = v.pack([v.READY, v.PROTOCOL, shard, incarnation, pid])
        self._heard = heard
        self._held = held
        self._channels = channels
        self.words: list[Any] = []  # always this list: whoever says something appends to it
        self.joined = False
        self.behind = False
        """Whether there may be more to hear. The descriptor does not tell of what came before."""
        self.last_heard = monotonic()
        self._joining = False
        self._sequence = 0
        self._announced = 0  # the batch with the last ANNOUNCE
        self._unconfirmed: deque[tuple[int, bytes, int, float]] = deque()  # sequence, batch, words in it, since when
        self._unconfirmed_words = 0
        self._unconfirmed_bytes = 0
        self._unkept: dict[tuple[bytes, str], int] = {}  # acknowledged, and the store could not keep that
        self._again: tuple[int, list[tuple[tuple[bytes, str], int]]] | None = None  # the batch that says some again
        self._unsaid: list[list[Any]] = []  # answers to questions that could not be put to the router
        self.refused = 0
        """Messages and words of the router that were not understood."""
        self.dropped = 0
        """Words that could not be said, and acknowledgements given up."""
        self._unsent: deque[bytes] = deque()
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, b"w" + incarnation)
        self._socket.setsockopt(zmq.SNDHWM, options.high_water)
        self._socket.setsockopt(zmq.RCVHWM, options.high_water)
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
    def lag(self) -> float:
        """For how many seconds the router has not confirmed what it was sent."""
        return monotonic() - self._unconfirmed[0][3] if self._unconfirmed else 0.0

    @property
    def saturated(self) -> bool:
        """Whether devices must not say more: too much is unconfirmed, or the router looks up what waits for them.

        An ack that is said while it looks would cross with the item on its way here, which would go out again.
        """
        unconfirmed, options = self._unconfirmed, self._options
        if not unconfirmed:
            return False
        return (
            len(unconfirmed) >= options.max_unconfirmed
            or self._unconfirmed_words >= options.max_unconfirmed_words
            or self._unconfirmed_bytes >= options.max_unconfirmed_bytes
            or (self.joined and unconfirmed[0][0] <= self._announced)
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
            if self._unsaid:
                unsaid, self._unsaid = self._unsaid, []
                self._heard(unsaid)
        while self._unsent:
            try:
                self._socket.send(self._unsent[0], _NOBLOCK)
            except zmq.Again:
                return
            self._unsent.popleft()

    def _enqueue(self, words: list[Any]) -> None:
        sequence = self._sequence + 1
        try:
            batch = v.pack([v.BATCH, sequence, words])
        except Exception as error:  # something in it cannot be said: half a character, say
            if len(words) > 1:
                for word in words:
                    self._enqueue([word])
            else:
                self._drop(words[0], repr(error))
            return
        if len(batch) > self._options.max_message_bytes:  # the router would not hear of it, however often it is said
            half = len(words) // 2
            if half:
                self._enqueue(words[:half])
                self._enqueue(words[half:])
            elif words[0][0] == v.ANNOUNCE_CHANNELS and (half := len(words[0][1]) // 2):
                self._enqueue([(v.ANNOUNCE_CHANNELS, words[0][1][:half])])
                self._enqueue([(v.ANNOUNCE_CHANNELS, words[0][1][half:])])
            else:
                self._drop(words[0], f"longer than link.max_message_bytes = {self._options.max_message_bytes}")
            return
        self._sequence = sequence
        self._unconfirmed.append((sequence, batch, len(words), monotonic()))
        self._unconfirmed_words += len(words)
        self._unconfirmed_bytes += len(batch)
        # Until WELCOME there goes nothing but READY, perhaps twice: a batch between the two would be heard in a lease
        # that ends with the second, and make the older ones that are repeated after it look like old news.
        if self.joined:
            self._unsent.append(batch)

    def _drop(self, word: Any, why: str) -> None:
        """It cannot be said. Whoever waits for its answer is told that it failed."""
        self.dropped += 1
        logs.limited("link.word_dropped", at="error", per=why, kind=word[0], why=why)
        if word[0] in v.ASKING and word[1]:
            self._unsaid.append([v.ANSWER, word[1], v.FAILED, None])

    def _receive(self, until: float) -> bool:
        heard = self.behind = False
        # Asked before each receive, because an exception for "nothing there" costs more than the question.
        while self._socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            data = self._socket.recv(_NOBLOCK)
            while self._socket.get(_RCVMORE):  # a message of ours is one part
                self._socket.recv(_NOBLOCK)
                data = b""
            heard = True
            try:
                self._message(v.unpack(data, self._options.max_message_bytes))
            except v.VocabularyError as error:
                self._refused(error)
            self.last_heard = now = monotonic()
            if now >= until:
                self.behind = True
                break
        return heard

    def _refused(self, error: v.VocabularyError) -> None:
        self.refused += 1
        logs.limited("link.not_understood", at="error", per="router", peer="router", error=str(error))

    def _message(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == v.WORDS:
            if len(message) != 4 or not (type(message[1]) is int and type(message[2]) is type(message[3]) is list):
                raise v.VocabularyError("WORDS of another shape")
            _, confirmed, words, unkept = message
            if unkept:
                self._keep(unkept)
            self._confirm(confirmed)
            if words:
                self._heard(self._understood(words))
            return
        shapes.check(shapes.OF_ROUTER, message)
        if kind == v.REJOIN:
            if not self._joining:
                self._join()
        elif kind == v.WELCOME and self._joining:  # a READY that was said twice is answered twice
            self._welcome()

    def _confirm(self, confirmed: int) -> None:
        unconfirmed = self._unconfirmed
        while unconfirmed and unconfirmed[0][0] <= confirmed:
            _, batch, words, _ = unconfirmed.popleft()
            self._unconfirmed_words -= words
            self._unconfirmed_bytes -= len(batch)
        if self._again is not None and self._again[0] <= confirmed:
            for name, version in self._again[1]:  # they are kept now
                if self._unkept.get(name) == version:
                    del self._unkept[name]
            self._again = None

    def _understood(self, words: list[Any]) -> list[Any]:
        """Without those that are none of ours, and without items that the device has acknowledged."""
        understood = []
        for word in words:
            try:
                if type(word) is not list or not word:
                    raise v.VocabularyError("a word is an array that begins with its kind")
                if word[0] == v.DELIVER:
                    _, number, device, slot, version, _ = word
                    if not (type(device) is bytes and type(number) is type(version) is int and type(slot) is str):
                        raise v.VocabularyError("DELIVER of another shape")
                elif word[0] == v.ANSWER:
                    _, call, status, _ = word
                    if not type(call) is type(status) is int:
                        raise v.VocabularyError("ANSWER of another shape")
                else:
                    shapes.check(shapes.WORDS_OF_ROUTER, word)
                    if self._unkept and word[0] == v.DELIVER_STORED:
                        word = self._unheard(word)
            except ValueError as error:
                self._refused(v.VocabularyError(str(error)))
            else:
                understood.append(word)
        return understood

    def _unheard(self, word: list[Any]) -> list[Any]:
        _, device, items = word
        known = self._unkept
        return [v.DELIVER_STORED, device, [item for item in items if known.get((device, item[0]), -1) < item[1]]]

    def _keep(self, sequences: list[Any]) -> None:
        """The store has failed these batches: the acknowledgements in them are ours to keep."""
        if self._again is not None and self._again[0] in sequences:
            self._again = None  # once more, later
        most = self._options.max_unconfirmed_words
        for sequence, batch, _, _ in self._unconfirmed:
            if sequence not in sequences:
                continue
            for word in v.unpack(batch, len(batch))[2]:
                if word[0] != v.ACK:
                    continue
                for slot, version in word[2]:
                    name = (word[1], slot)
                    before = self._unkept.pop(name, -1)  # what was acknowledged last is given up last
                    if len(self._unkept) >= most:
                        del self._unkept[next(iter(self._unkept))]
                        self.dropped += 1
                    self._unkept[name] = max(before, version)

    def _acks_again(self, most: int) -> None:
        """Say again what the store could not keep."""
        names = list(islice(self._unkept.items(), most))
        acks: dict[bytes, list[tuple[str, int]]] = {}
        for (device, slot), version in names:
            acks.setdefault(device, []).append((slot, version))
        self._enqueue([(v.ACK, device, updates) for device, updates in acks.items()])
        self._again = (self._sequence, names)

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
        self._unsent.extend(batch for _, batch, _, _ in self._unconfirmed)
        if self.words:
            self._enqueue(self.words)
            self.words.clear()
        if self._unkept:
            self._acks_again(len(self._unkept))
        held = self._held()
        for channels in self._channels():  # first, because that is done at once
            self._enqueue([(v.ANNOUNCE_CHANNELS, channels)])
        for keys, runs in held:
            self._enqueue([(v.ANNOUNCE, keys, runs)])
            self._announced = self._sequence

    def beat(self, snapshot: dict[str, float]) -> None:
        """Tell the router that we live. Not kept: the next one says it again."""
        if self._unkept and self._again is None and self.joined and not self.saturated:
            self._acks_again(_ACKS_AGAIN)
        if not self._unsent and not self._joining:
            self._unsent.append(v.pack([v.BEAT, snapshot]))
        elif self._joining and not self._unsent:
            # The READY, or its answer, was lost with a router.
            self._unsent.append(self._join_message)

    def close(self) -> None:
        """Close; what is queued has a second to leave."""
        self._send()
        self._socket.close()
