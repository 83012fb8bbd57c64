"""The router's end of the link: one ROUTER socket, over ipc and in a cluster over TCP too, drained and filled by each
call of `pump`.

ZMQ_FD is edge-triggered: after any send or receive something may wait that it will never report again. So there is
one place that touches the socket, and it goes on until receiving would block and everything sendable is sent.
"""

from __future__ import annotations

from time import monotonic

import zmq

from router.common import logs
from router.common import messages as m
from router.common.link_address import LinkError
from router.common.places import Listening, Place
from router.common.settings import LinkOptions
from router.core.hub import Hub
from router.core.sessions import WorkerSession
from router.gate import Gate

_PUMP_S = 0.02
"""So long envelopes are received without end, while there are many: then app servers and the clock have a turn."""
_PUMP_LEAST = 16
"""So many envelopes are received even if that has taken longer: where this process has to wait for a core, the time
that passes shows little of the work, and a turn costs as much as several envelopes."""
# As plain integers: pyzmq's flags are enums, and combining them costs more than sending.
_NOBLOCK = int(zmq.NOBLOCK)
_EVENTS = int(zmq.EVENTS)
_RCVMORE = int(zmq.RCVMORE)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class RouterLink:
    """Shell around a Hub: messages in, messages out."""

    gate: Gate | None = None

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        where: str,
        hub: Hub,
        options: LinkOptions,
        place: Place | None = None,
    ) -> None:
        """where: for workers of this host; place: for those of others.

        Raises: LinkError.
        """
        self._hub = hub
        self.behind = False
        """Whether there may be more to receive. The descriptor does not report what came before."""
        self.heard_until = monotonic()
        """When nothing was left to receive; after a standstill not all may have been there (`Hearing`)."""
        self._socket = self.server = context.socket(zmq.ROUTER)
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
        # After that of this host, because for all that comes later a key is wanted.
        self.listening = Listening(self._socket, place)
        self.fileno: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]

    def pump(self) -> None:
        """Send what there is, then receive what there is, until neither is left or time is up: then it is `behind`."""
        self.send()
        until = monotonic() + _PUMP_S
        while self._receive(until):
            self.send()
            if self.behind or monotonic() > until:
                self.behind = True
                return

    def _receive(self, until: float) -> bool:
        received = self.behind = False
        receive, get, hub = self._socket.recv, self._socket.get, self._hub
        sessions = hub.sessions
        now = monotonic()
        messages = 0
        # Asked before each receive, because an exception for "nothing there" costs more than the question.
        while get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            identity = receive(_NOBLOCK)
            data = receive(_NOBLOCK) if get(_RCVMORE) else b""  # the parts of a message come together
            received = True
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
            if sessions.pressing:
                self.send()
            now = monotonic()
            messages += 1
            if now > until and messages >= _PUMP_LEAST:
                self.behind = True
                return True
        self.heard_until = now
        return received

    def send(self) -> None:
        """Send what there is. What arrives meanwhile has to be pumped all the same.

        A session whose worker is found to have gone has consequences: what they want sent goes with the next call.
        """
        hub = self._hub
        for identity, data in hub.take_direct():
            self._send_one(identity, data)
        if self.gate is not None and hub.sessions.dirty and self.gate.look():
            return  # but for what is for the supervisor, and for workers that join
        gone = [session for session in hub.outgoing() if self._drain(session) is None]
        for session in gone:
            hub.lost(session, "it has gone")

    def _drain(self, session: WorkerSession) -> bool | None:
        """Send all that waits for a session, in more than one envelope where it has to be; what is not sent stays."""
        while True:
            outcome = self._send_one(session.identity, session.envelope())
            if not outcome:
                session.blocked = True
                return outcome
            if session.sent():
                self._hub.drained(session)
                return True

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
