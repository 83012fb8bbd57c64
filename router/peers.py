"""The links between this router and the others: one ROUTER socket, where they ask, and a DEALER socket to each of them,
where they are asked. Every call of `pump` drains and fills all of them.

As with workers (`router.link`), ZMQ_FD is edge-triggered: one place touches a socket, and goes on until there is
nothing to receive and everything sendable is sent. A router that is away costs nothing but the question whether its
socket takes anything: nothing is queued for a connection that is not there (ZMQ_IMMEDIATE), and what was queued for one
that ends is dropped with it, so another life of a router is sent nothing that was for the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

import zmq

from router.common import logs
from router.common import messages as m
from router.common.link_address import LinkError, peer_address
from router.common.places import Listening, Place, Places
from router.common.poller import INPUT, Poller
from router.common.settings import LinkOptions
from router.core.answering import Asker
from router.core.asking import Owner
from router.core.hub import Hub
from router.gate import Gate
from router.link import RouterLink

_PUMP_S: Final = 0.02
"""So long envelopes are received without end, while there are many: then app servers and the clock have a turn."""
# As plain integers: pyzmq's flags are enums, and combining them costs more than sending.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_RCVMORE: Final = int(zmq.RCVMORE)
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)
_NOBLOCK_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

_Socket = zmq.Socket[bytes]


class Peers:
    """Shell around what a hub asks of other routers (`Hub.asking`) and answers them (`Hub.answering`)."""

    gate: Gate | None = None

    def __init__(
        self,
        context: zmq.Context[_Socket],
        places: Places,
        number: int,
        hub: Hub,
        options: LinkOptions,
        poller: Poller | None = None,
    ) -> None:
        """number: of this router. poller: reports when another router may have sent something.

        Raises: LinkError.
        """
        self._context = context
        self._places = places
        self._options = options
        self._hub = hub
        self.behind = False
        """Whether there may be more to receive. The descriptors do not report what came before."""
        self._askers = self.server = _socket(context, zmq.ROUTER, options)
        self._askers.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._askers.setsockopt(zmq.LINGER, 500)
        where = peer_address(places.folder, number)
        try:
            self._askers.bind(where)
        except zmq.ZMQError as error:
            raise LinkError(f"{where.removeprefix('ipc://')}: cannot listen there: {error.strerror}") from None
        listening = places.listening(number)
        self.listening = Listening(self._askers, None if listening is None else listening[1])
        self._connected: dict[int, Place | None] = {}
        self._owners: dict[int, _Socket] = {}
        self._poller = poller
        if poller is not None:
            poller.register(_fileno(self._askers), INPUT)
        for owner in hub.asking.owners:
            self._connect(owner)

    def _connect(self, owner: int) -> None:
        """A socket that is connected to where this router is; where that is not known nothing can be sent."""
        socket = _socket(self._context, zmq.DEALER, self._options)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.LINGER, 0)
        place = self._connected[owner] = self._places.for_routers(owner)
        if place is not None:
            place.connect(socket)
        self._owners[owner] = socket
        if self._poller is not None:
            self._poller.register(_fileno(socket), INPUT)

    def follow(self, numbers: Iterable[int]) -> None:
        """These routers have been placed anew."""
        for owner in numbers:
            if owner in self._owners and self._places.for_routers(owner) != self._connected[owner]:
                before = self._owners[owner]
                if self._poller is not None:
                    self._poller.unregister(_fileno(before))
                before.close()
                self._connect(owner)
                self._hub.asking.owners[owner].moved()

    def pump(self) -> bool:
        """Send what there is and receive what there is, until neither is left or time is up: then it is `behind`.

        Returns: whether anything came, which may have produced something for workers.
        """
        self.behind = False
        came = False
        until = monotonic() + _PUMP_S
        while True:
            self._send()
            if not self._receive(until):
                return came
            came = True
            if self.behind or monotonic() > until:
                self.behind = True
                self._send()
                return came

    def pump_with(self, link: RouterLink) -> bool:
        """The same together with the link to the workers, which has just been pumped. What other routers ask for is
        sent to workers, and what workers report may be their answer.

        Returns: whether there may be more, here or there.
        """
        until = monotonic() + _PUMP_S
        while self.pump():
            link.pump()
            # However much others send meanwhile: the app servers of this router and the store have a turn.
            if self.behind or link.behind or monotonic() > until:
                return True
        return link.behind

    def close(self) -> None:
        """Close the sockets; what is queued for those that ask has half a second to leave."""
        for socket in (self._askers, *self._owners.values()):
            socket.close()

    # ------------------------------------------------------------------ receiving

    def _receive(self, until: float) -> bool:
        received = False
        owners, answering = self._hub.asking.owners, self._hub.answering
        for number, socket in self._owners.items():
            while socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]
                received = True
                self._guarded(str(number), owners[number].received, _whole(socket))
                if monotonic() > until:
                    self.behind = True
                    return True
        askers, get = self._askers, self._askers.get
        while get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            received = True
            identity = askers.recv(_NOBLOCK)
            data = _whole(askers) if get(_RCVMORE) else b""
            self._guarded(identity.hex(), answering.received, identity, data)
            if monotonic() > until:
                self.behind = True
                return True
        return received

    def _guarded(self, peer: str, received: Callable[..., None], *envelope: bytes) -> None:
        try:
            received(*envelope)
        except m.MessageError as error:
            self._hub.counters.link_refused += 1
            logs.limited("peer.not_understood", at="error", per=peer, peer=peer, error=str(error))
        except Exception as error:  # one envelope's defect must not take the router down
            self._hub.counters.link_refused += 1
            logs.limited("peer.failed", at="error", per=repr(error), peer=peer, exc=error)

    # ------------------------------------------------------------------ sending

    def _send(self) -> None:
        if self.gate is not None and self.gate.look():
            return
        asking, answering = self._hub.asking, self._hub.answering
        for owner in list(asking.dirty.values()):
            if self._fill(owner):
                asking.dirty.pop(owner.number, None)
        for identity, data in answering.take_direct():
            self._answer(identity, data)
        for asker in list(answering.dirty.values()):
            self._drain(asker)

    def _fill(self, owner: Owner) -> bool:
        """Returns: whether all that may be sent now was."""
        socket = self._owners[owner.number]
        while socket.get(_EVENTS) & _POLLOUT:  # type: ignore[operator]
            data = owner.envelope()
            if data is None:
                return True
            try:
                socket.send(data, _NOBLOCK)
            except zmq.Again:
                return False
            except zmq.ZMQError as error:
                logs.limited("peer.send_failed", at="error", per=str(error), peer=owner.number, error=str(error))
                return False
            owner.sent()
        return False

    def _drain(self, asker: Asker) -> None:
        answering = self._hub.answering
        while (data := asker.envelope()) is not None:
            sent = self._answer(asker.identity, data)
            if sent is None:
                answering.lost(asker)
                return
            if not sent:
                return
            asker.sent()
        answering.dirty.pop(asker.number, None)

    def _answer(self, identity: bytes, data: bytes) -> bool | None:
        """True: sent. False: its queue is full. None: it has gone."""
        try:
            self._askers.send(identity, _NOBLOCK_MORE)
            self._askers.send(data, _NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                logs.limited("peer.send_failed", at="error", per=str(error), peer=identity.hex(), error=str(error))
            return None
        return True


def _socket(context: zmq.Context[_Socket], kind: int, options: LinkOptions) -> _Socket:
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, options.high_water)
    socket.setsockopt(zmq.RCVHWM, options.high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, options.max_message_bytes)
    return socket


def _fileno(socket: _Socket) -> int:
    fileno: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
    return fileno


def _whole(socket: _Socket) -> bytes:
    """An envelope, which is one part; b"" for more, which is none."""
    data = socket.recv(_NOBLOCK)
    if not socket.get(_RCVMORE):
        return data
    while socket.get(_RCVMORE):
        socket.recv(_NOBLOCK)
    return b""
