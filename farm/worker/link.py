"""A worker's end of a link: one DEALER socket; batches are kept until the router says that they are durable.

When the router is another one, or has forgotten us, everything unconfirmed is sent again, and then all that we hold.
So nothing that a device was promised is lost with a router.

Acknowledgements that the store could not keep are sent again until it can. Until then the acknowledged items, which a
router may read from the store again, are not delivered: the device has had them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from time import monotonic

import zmq

from router.common import logs
from router.common import messages as m
from router.common.places import Place
from router.common.settings import LinkOptions
from router.common.wire import ANNOUNCED, VERSIONS, WIRES

_NOBLOCK = int(zmq.NOBLOCK)  # a plain integer: pyzmq's enum costs more than the call
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_RCVMORE = int(zmq.RCVMORE)
_PUMP_S = 0.02
"""So long the router's envelopes are received while there are many: then devices and the clock have a turn."""
_ACKS_AGAIN = 1000
"""So many acknowledgements that the store could not keep are sent again at a time."""
_REFUSED_RETRY_S = 5.0
"""A router that speaks no version of ours is asked again after this time."""
_FLOODED = 2
"""At so many times the limits of what may be unconfirmed, what nobody waits for is dropped. Where other routers keep
up, connections come and go while this one does not, and each may send a message before it is not read any more."""
_LINGER_MS = 1000
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 500


class WorkerLink:
    """Collects messages, sends them as batches, hands over the messages of the router.

    `received` is called with the messages of each batch. When the router has sent WELCOME, `held` gives the devices
    that are attached and replied to, as ANNOUNCE has them, and then `channels` what ANNOUNCE_CHANNELS is to announce.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        place: Place | None,
        options: LinkOptions,
        shard: int,
        incarnation: bytes,
        pid: int,
        received: Callable[[list[m.ToWorker]], None],
        held: Callable[[], Iterable[tuple[list[bytes], list[tuple[int, int]]]]],
        channels: Callable[[], Iterable[list[m.HeldChannel]]] = tuple,
        versions: range = VERSIONS,
    ) -> None:
        """place: where the router is; None: that is not known yet."""
        self._context = context
        self._options = options
        self._identity = b"w" + incarnation
        self.place = place
        """Where it is connected to."""
        self.host = ""
        """ID of this worker's host in a cluster."""
        self._versions = versions
        self._wire = WIRES[versions[-1]]
        self._ready = self._wire.encode(m.Ready(versions[-1], shard, incarnation, pid, versions[0]))
        self._received = received
        self._held = held
        self._channels = channels
        self.messages: list[m.ToRouter] = []  # always this list: senders append to it
        self.joined = False
        self.behind = False
        """Whether there may be more to receive. The descriptor does not report what came before."""
        self.last_heard = monotonic()
        """When the router has sent something to this worker as one that it knows; until then, when this was made."""
        self._joining = False
        self._retry_at = 0.0  # no READY before that
        self._sequence = 0
        self._heard = 0  # the number of the router's last batch
        self._announced = 0  # the batch with the last ANNOUNCE
        self._unconfirmed: deque[tuple[int, bytes, int, float]] = deque()  # sequence, batch, messages in it, since when
        self._unconfirmed_messages = 0
        self._unconfirmed_bytes = 0
        self._unkept: dict[tuple[bytes, str], int] = {}  # acknowledged, and the store could not keep that
        self._again: tuple[int, list[tuple[tuple[bytes, str], int]]] | None = None  # the batch that has some again
        self._unsent_calls: list[m.ToWorker] = []  # replies to calls that could not be sent
        self.refused = 0
        """Envelopes and messages of the router that were not understood."""
        self.dropped = 0
        """Messages that could not be sent, and acknowledgements given up."""
        self._unsent: deque[bytes] = deque()
        self._socket = self._connected(place)
        self.fileno: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self._join()

    def _connected(self, place: Place | None) -> zmq.Socket[bytes]:
        """A socket that is connected to this place; where there is none it takes nothing and nothing comes."""
        options, socket = self._options, self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, self._identity)
        socket.setsockopt(zmq.SNDHWM, options.high_water)
        socket.setsockopt(zmq.RCVHWM, options.high_water)
        socket.setsockopt(zmq.MAXMSGSIZE, options.max_message_bytes)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        if place is not None:
            try:
                place.connect(socket)
            except Exception:
                socket.close(linger=0)
                raise
        return socket

    def move(self, place: Place | None) -> None:
        """The router is there now. What it has sent from where it was is received first, as far as it has come; what it
        has not confirmed is repeated, as to any router that is new. `fileno` is another socket's.

        Raises: ValueError or zmq.ZMQError if that is no address; then the link stays as it is.
        """
        self._receive(monotonic() + _PUMP_S)
        socket = self._connected(place)
        self._socket.close(linger=0)
        self.place = place
        self._socket = socket
        self.fileno = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self.behind = False
        self._retry_at = 0.0
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
        """Whether devices must not send more: too much is unconfirmed, or the router looks up what waits for them.

        An ack that is sent while it looks would cross with the item on its way here, which would go out again.
        """
        unconfirmed, options = self._unconfirmed, self._options
        if not unconfirmed:
            return False
        return (
            len(unconfirmed) >= options.max_unconfirmed
            or self._unconfirmed_messages >= options.max_unconfirmed_messages
            or self._unconfirmed_bytes >= options.max_unconfirmed_bytes
            or (self.joined and unconfirmed[0][0] <= self._announced)
        )

    @property
    def _flooded(self) -> bool:
        options = self._options
        return (
            self._unconfirmed_messages >= _FLOODED * options.max_unconfirmed_messages
            or self._unconfirmed_bytes >= _FLOODED * options.max_unconfirmed_bytes
        )

    def pump(self) -> None:
        """Send what there is, then receive what there is, until neither is left or time is up: then we are `behind`."""
        self._send()
        until = monotonic() + _PUMP_S
        while self._receive(until):
            self._send()
            if self.behind:
                return

    def _send(self) -> None:
        if self.messages:
            self._enqueue(self.messages)
            self.messages.clear()
            if self._unsent_calls:
                replies, self._unsent_calls = self._unsent_calls, []
                self._received(replies)
        while self._unsent:
            try:
                self._socket.send(self._unsent[0], _NOBLOCK)
            except zmq.Again:
                return
            self._unsent.popleft()

    def _enqueue(self, messages: list[m.ToRouter]) -> None:
        if self._flooded:
            for message in messages:
                if isinstance(message, m.Publish | m.Happened):
                    self._drop(message, "too much waits for the router already")
            messages = [message for message in messages if not isinstance(message, m.Publish | m.Happened)]
            if not messages:
                return
        sequence = self._sequence + 1
        try:
            batch = self._wire.encode(m.WorkerBatch(sequence, messages))
        except Exception as error:  # something in it cannot be encoded: half a character, for example
            if len(messages) > 1:
                for message in messages:
                    self._enqueue([message])
            else:
                self._drop(messages[0], repr(error))
            return
        if len(batch) > self._options.max_message_bytes:  # the router would not receive it, however often it is sent
            half = len(messages) // 2
            first = messages[0]
            if half:
                self._enqueue(messages[:half])
                self._enqueue(messages[half:])
            elif isinstance(first, m.AnnounceChannels) and (half := len(first.channels) // 2):
                self._enqueue([m.AnnounceChannels(first.channels[:half])])
                self._enqueue([m.AnnounceChannels(first.channels[half:])])
            else:
                self._drop(first, f"longer than link.max_message_bytes = {self._options.max_message_bytes}")
            return
        self._sequence = sequence
        self._unconfirmed.append((sequence, batch, len(messages), monotonic()))
        self._unconfirmed_messages += len(messages)
        self._unconfirmed_bytes += len(batch)
        # Until WELCOME there goes nothing but READY, perhaps twice: a batch between the two would be received in a
        # lease that ends with the second, and make the older ones that are repeated after it look like older ones.
        if self.joined:
            self._unsent.append(batch)

    def _drop(self, message: m.ToRouter, why: str) -> None:
        """It cannot be sent. If it is a call, it is replied to with FAILED."""
        self.dropped += 1
        logs.limited("link.message_dropped", at="error", per=why, kind=type(message).__name__, why=why)
        if isinstance(message, m.Call):
            self._unsent_calls.append(m.Reply(message.number, m.FAILED, None))

    def _receive(self, until: float) -> bool:
        received = self.behind = False
        # Asked before each receive, because an exception for "nothing there" costs more than the question.
        while self._socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            data = self._socket.recv(_NOBLOCK)
            while self._socket.get(_RCVMORE):  # a message of ours is one part
                self._socket.recv(_NOBLOCK)
                data = b""
            received = True
            try:
                self._envelope(self._wire.of_router(data, self._options.max_message_bytes))
            except m.MessageError as error:
                self._refused(error)
            now = monotonic()
            if self.joined:
                self.last_heard = now
            if now >= until:
                self.behind = True
                break
        return received

    def _refused(self, error: m.MessageError) -> None:
        self.refused += 1
        logs.limited("link.not_understood", at="error", per="router", peer="router", error=str(error))

    def _envelope(self, envelope: m.OfRouter) -> None:
        if isinstance(envelope, m.RouterBatch):
            if not self._is_next(envelope.number):
                return
            if envelope.unkept:
                self._keep(envelope.unkept)
            self._confirm(envelope.confirmed)
            if envelope.messages:
                self._received(self._understood(envelope.messages))
        elif isinstance(envelope, m.Rejoin):
            if not self._joining:
                self._join()
        elif isinstance(envelope, m.Welcome):
            self._heard = 0
            if self._joining and not self._unsent:  # a READY that was sent twice is answered twice
                self._welcome(envelope.version)
        elif isinstance(envelope, m.Refused):
            self._router_refuses(envelope)

    def _is_next(self, number: int) -> bool:
        """Whether the router's batch of this number may be acted on; 0: it speaks a version that has none.

        Until WELCOME none is: it is of the session before, and what came before it may have been lost.
        """
        if self._joining:
            return False
        if number and number != self._heard + 1:
            logs.limited("link.interrupted", at="warning", per="router")
            self._join()
            return False
        self._heard = number
        return True

    def _confirm(self, confirmed: int) -> None:
        unconfirmed = self._unconfirmed
        while unconfirmed and unconfirmed[0][0] <= confirmed:
            _, batch, messages, _ = unconfirmed.popleft()
            self._unconfirmed_messages -= messages
            self._unconfirmed_bytes -= len(batch)
        if self._again is not None and self._again[0] <= confirmed:
            for name, version in self._again[1]:  # they are kept now
                if self._unkept.get(name) == version:
                    del self._unkept[name]
            self._again = None

    def _understood(self, messages: Sequence[m.ToWorker | m.Malformed]) -> list[m.ToWorker]:
        """Without those that are none of ours, and without items that the device has acknowledged."""
        if self._unkept:
            messages = [self._unacknowledged(message) for message in messages]
        understood: list[m.ToWorker] = []
        for message in messages:
            if isinstance(message, m.Malformed):
                self._refused(m.MessageError(message.error))
            else:
                understood.append(message)
        return understood

    def _unacknowledged(self, message: m.ToWorker | m.Malformed) -> m.ToWorker | m.Malformed:
        if not isinstance(message, m.DeliverStored):
            return message
        device, known = message.device, self._unkept
        return m.DeliverStored(
            device, [item for item in message.items if known.get((device, item.slot), -1) < item.version]
        )

    def _keep(self, sequences: list[int]) -> None:
        """The store has failed these batches: the acknowledgements in them are ours to keep."""
        if self._again is not None and self._again[0] in sequences:
            self._again = None  # once more, later
        most = self._options.max_unconfirmed_messages
        for sequence, data, _, _ in self._unconfirmed:
            if sequence not in sequences:
                continue
            for message in self._batch(data).messages:
                if not isinstance(message, m.Ack):
                    continue
                for slot, version in message.updates:
                    name = (message.device, slot)
                    before = self._unkept.pop(name, -1)  # what was acknowledged last is given up last
                    if len(self._unkept) >= most:
                        del self._unkept[next(iter(self._unkept))]
                        self.dropped += 1
                    self._unkept[name] = max(before, version)

    def _batch(self, data: bytes) -> m.WorkerBatch:
        """One of ours, as it was."""
        batch = self._wire.of_worker(data, len(data))
        assert isinstance(batch, m.WorkerBatch)
        return batch

    def _acks_again(self, most: int) -> None:
        """Send again what the store could not keep."""
        names = list(islice(self._unkept.items(), most))
        acks: dict[bytes, list[tuple[str, int]]] = {}
        for (device, slot), version in names:
            acks.setdefault(device, []).append((slot, version))
        self._enqueue([m.Ack(device, updates) for device, updates in acks.items()])
        self._again = (self._sequence, names)

    def _join(self) -> None:
        self._joining = True
        self.joined = False
        self._unsent.clear()
        self._unsent.append(self._ready)

    def _router_refuses(self, router: m.Refused) -> None:
        """The router has no version in common with us, until one of the two is upgraded."""
        self._retry_at = monotonic() + _REFUSED_RETRY_S
        ours, theirs = self._versions, f"{router.lowest} to {router.highest}"
        upgrade = "this worker" if ours[-1] < router.lowest else "the router"
        logs.limited(
            "link.versions_differ", at="error", ours=f"{ours[0]} to {ours[-1]}", router=theirs, upgrade=upgrade
        )

    def _speak(self, version: int) -> None:
        """From here on in this version; what has not been confirmed yet, too."""
        if version not in self._versions:
            raise m.MessageError(f"WELCOME to version {version} of the protocol, which we do not speak")
        if version == self._wire.version:
            return
        batches = [(sequence, self._batch(data), size, since) for sequence, data, size, since in self._unconfirmed]
        self._wire = WIRES[version]
        self._unconfirmed.clear()
        self._unconfirmed_bytes = 0
        for sequence, batch, size, since in batches:
            data = self._wire.encode(batch)
            self._unconfirmed.append((sequence, data, size, since))
            self._unconfirmed_bytes += len(data)

    def _welcome(self, version: int) -> None:
        self._speak(version)
        self._joining = False
        self.joined = True
        # First what was sent and not confirmed, acks among it; then what is held: the router answers that with
        # what waits in the store, which must not be what was acknowledged already.
        self._unsent.clear()
        if version >= m.COUNTED:
            confirmed = self._unconfirmed[0][0] - 1 if self._unconfirmed else self._sequence
            self._unsent.append(self._wire.encode(m.Begin(self.host, confirmed)))
        self._unsent.extend(batch for _, batch, _, _ in self._unconfirmed)
        if self.messages:
            self._enqueue(self.messages)
            self.messages.clear()
        if self._unkept:
            self._acks_again(len(self._unkept))
        held = self._held()
        for channels in self._channels():  # first, because that is done at once
            self._enqueue([m.AnnounceChannels(channels)])
        for keys, runs in held:
            self._enqueue([m.Announce(keys, runs)])
            self._announced = self._sequence
        if version >= ANNOUNCED:
            last = self._unconfirmed[-1][0] if self._unconfirmed else 0
            self._unsent.append(self._wire.encode(m.Announced(last)))

    def beat(self, snapshot: dict[str, float]) -> None:
        """Let the router know that this worker lives. Not kept: another one follows."""
        if self._unkept and self._again is None and self.joined and not self.saturated:
            self._acks_again(_ACKS_AGAIN)
        if not self._unsent and not self._joining:
            self._unsent.append(self._wire.encode(m.Beat(snapshot, self._sequence)))
        elif self._joining and not self._unsent and monotonic() >= self._retry_at:
            # The READY, or its answer, was lost with a router.
            self._unsent.append(self._ready)

    def leave(self) -> None:
        """This worker has drained, and sends nothing more."""
        if self.joined and self._wire.version >= m.INSPECTED:
            self._unsent.append(self._wire.encode(m.Leave()))

    def close(self) -> None:
        """Close; what is queued has a second to leave."""
        self._send()
        self._socket.close()
