"""The router's end of the link: one ROUTER socket over ipc, drained and filled by whoever calls `pump`.

ZMQ_FD is edge-triggered: after any send or receive something may wait of which it will never tell again. So there is
one place that touches the socket, and it goes on until receiving would block and everything sendable is sent.
"""

from __future__ import annotations

from time import monotonic

import zmq

from router.common import logs
from router.common import messages as m
from router.common.link_address import LinkError
from router.common.settings import LinkOptions
from router.common.wire import Wire
from router.core.hub import Hub, WorkerSession

_PUMP_S = 0.02
"""So long workers are heard without end, while they say much: then app servers and the clock have a turn."""
_PUMP_LEAST = 16
"""So many messages are heard even if that has taken longer: where this process has to wait for a core, the time that
passes says little of the work, and a turn costs as much as several messages."""
# As plain integers: pyzmq's flags are enums, and combining them costs more than sending.
_NOBLOCK = int(zmq.NOBLOCK)
_EVENTS = int(zmq.EVENTS)
_RCVMORE = int(zmq.RCVMORE)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class RouterLink:
    """Shell around a Hub: messages in, messages out."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], where: str, hub: Hub, options: LinkOptions) -> None:
        self._hub = hub
        self._limit = options.max_message_bytes
        self._sending = False
        self.behind = False
        """Whether there may be more to hear. The descriptor does not tell of what came before."""
        self.heard_until = monotonic()
        """When there was nothing that had not been heard."""
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.SNDHWM, options.high_water)
        self._socket.setsockopt(zmq.RCVHWM, options.high_water)
        self._socket.setsockopt(zmq.MAXMSGSIZE, options.max_message_bytes)
        self._socket.setsockopt(zmq.LINGER, 500)
        try:
            self._socket.bind(where)
        except zmq.ZMQError as error:
            raise LinkError(f"{where.removeprefix('ipc://')}: cannot listen there: {error.strerror}") from None
        self.fileno: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]

    def pump(self) -> None:
        """Send what there is, then hear what there is, until neither is left or time is up: then it is `behind`."""
        self.send()
        until = monotonic() + _PUMP_S
        while self._receive(until):
            self.send()
            if self.behind or monotonic() > until:
                self.behind = True
                return

    def _receive(self, until: float) -> bool:
        heard = self.behind = False
        receive, get, hub = self._socket.recv, self._socket.get, self._hub
        now = monotonic()
        messages = 0
        # Asked before each receive, because an exception for "nothing there" costs more than the question.
        while get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            identity = receive(_NOBLOCK)
            data = receive(_NOBLOCK) if get(_RCVMORE) else b""  # the parts of a message come together
            heard = True
            if get(_RCVMORE):
                while get(_RCVMORE):
                    receive(_NOBLOCK)
                data = b""  # a message of ours is one part
            try:
                hub.received(identity, data)
            except m.MessageError as error:
                hub.counters.link_refused += 1
                logs.limited(
                    "link.not_understood", at="error", per=identity.hex(), peer=identity.hex(), error=str(error)
                )
            except Exception as error:  # one message's defect must not take the router down
                hub.counters.link_refused += 1
                logs.limited("link.failed", at="error", per=repr(error), peer=identity.hex(), exc=error)
            now = monotonic()
            messages += 1
            if now > until and messages >= _PUMP_LEAST:
                self.behind = True
                return True
        self.heard_until = now
        return heard

    def send(self) -> None:
        """Send what there is. What arrives meanwhile has to be pumped all the same.

        It may be called while it runs, because a peer that is found to have gone has consequences: what they need
        said is sent by the next call.
        """
        if self._sending:
            return
        self._sending = True
        try:
            self._send()
        finally:
            self._sending = False

    def _send(self) -> None:
        hub = self._hub
        while hub.direct:
            identity, wire, envelope = hub.direct.popleft()
            data = _packed(wire, envelope)
            if data is not None:
                # Somebody who is no peer and cannot be reached now asks again later.
                self._send_one(identity, data)
        if not hub.dirty:
            return
        for identity, peer in list(hub.dirty.items()):
            if hub.dirty.get(identity) is not peer:
                continue  # lost, or joined again, by what came of another's loss
            outcome = self._send_outbox(identity, peer)
            if outcome is None:
                hub.lose(peer, "it has gone")
            elif outcome:
                del hub.dirty[identity]

    def _send_outbox(self, identity: bytes, peer: WorkerSession) -> bool | None:
        """Send all that is to be said to a peer, in more than one message where it has to be; what is not sent stays.

        What is confirmed is said with the last part, because it must not be known before the answers that go with it.
        What was not kept is said with the first, because what is read from the store may hold it.
        """
        while True:
            part = len(peer.outbox)
            data = _packed(peer.wire, m.RouterBatch(peer.confirmed, peer.outbox, peer.unkept))
            if data is None:
                fit = [one for one in peer.outbox if _packed(peer.wire, m.RouterBatch(0, [one], [])) is not None]
                self._hub.counters.words_dropped += len(peer.outbox) - len(fit)
                peer.outbox = fit
                continue
            while part and len(data) > self._limit:
                part //= 2
                data = peer.wire.encode(m.RouterBatch(peer.told, peer.outbox[:part], peer.unkept))
            if part < len(peer.outbox) and not part:
                message = peer.outbox.pop(0)
                self._hub.counters.words_too_long += 1
                logs.limited(
                    "link.word_too_long",
                    at="error",
                    shard=peer.lease.shard,
                    kind=type(message).__name__,
                    limit=self._limit,
                )
                continue
            outcome = self._send_one(identity, data)
            if not outcome:
                return outcome
            peer.unkept = []
            if part == len(peer.outbox):
                peer.outbox = []
                peer.told = peer.confirmed
                return True
            del peer.outbox[:part]

    def _send_one(self, identity: bytes, data: bytes) -> bool | None:
        """True: sent. False: the peer's queue is full. None: there is no such peer, or it cannot be reached."""
        try:
            self._socket.send(identity, _NOBLOCK_MORE)
            self._socket.send(data, _NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                logs.limited("link.send_failed", at="error", per=str(error), peer=identity.hex(), error=str(error))
            return None
        return True

    def close(self) -> None:
        """Close the socket; what is queued has half a second to leave."""
        self._socket.close()


def _packed(wire: Wire, envelope: m.OfRouter) -> bytes | None:
    """The envelope as bytes; None if there is something in it that cannot be said: half a character, or no value of
    msgpack's."""
    try:
        return wire.encode(envelope)
    except Exception as error:
        logs.limited("link.not_packed", at="error", per=repr(error), exc=error)
        return None
