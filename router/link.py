"""The router's end of the link: one ROUTER socket over ipc, drained and filled by whoever calls `pump`.

ZMQ_FD is edge-triggered: after any send or receive something may wait of which it will never tell again. So there is
one place that touches the socket, and it goes on until receiving would block and everything sendable is sent.
"""

from __future__ import annotations

from pathlib import Path

import zmq

from router import logs
from router import vocabulary as v
from router.hub import Hub, Peer
from router.settings import LinkOptions

SOCKET_NAME = "router.sock"
_SUN_PATH_MAX = 107
_SEND_HIGH_WATER = 1000  # messages of a whole wake-up each; beyond, words wait in the hub, bounded by link.queue_limit
_RECEIVE_HIGH_WATER = 10_000
# As plain integers: pyzmq's flags are enums, and combining them costs more than sending.
_NOBLOCK = int(zmq.NOBLOCK)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class LinkError(Exception):
    """The link's address cannot be used."""


def address(folder: Path) -> str:
    """The link's address in this control folder.

    Raises: LinkError if the path is too long for a Unix socket.
    """
    path = str(folder.resolve() / SOCKET_NAME)
    if len(path.encode()) > _SUN_PATH_MAX:
        raise LinkError(
            f"{path} is longer than the {_SUN_PATH_MAX} bytes a Unix socket may have: choose a shorter data.dir"
        )
    return f"ipc://{path}"


class RouterLink:
    """Shell around a Hub: messages in, messages out."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], where: str, hub: Hub, options: LinkOptions) -> None:
        self._hub = hub
        self._limit = options.max_message_bytes
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.SNDHWM, _SEND_HIGH_WATER)
        self._socket.setsockopt(zmq.RCVHWM, _RECEIVE_HIGH_WATER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, options.max_message_bytes)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.bind(where)
        self.fileno: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]

    def pump(self) -> None:
        """Send what there is, then hear what there is, until neither is left."""
        self.send()
        while self._receive():
            self.send()

    def _receive(self) -> bool:
        heard = False
        receive, hub = self._socket.recv, self._hub
        # Asked before each receive, because an exception for "nothing there" costs more than the question.
        while self._socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            identity = receive(_NOBLOCK)
            data = receive(_NOBLOCK)  # the parts of a message come together
            heard = True
            try:
                hub.heard(identity, v.unpack(data, self._limit))
            except (v.VocabularyError, ValueError, TypeError, IndexError) as error:
                logs.error("link.not_understood", peer=identity.hex(), error=str(error))
        return heard

    def send(self) -> None:
        """Send what there is. What arrives meanwhile has to be pumped all the same."""
        hub = self._hub
        while hub.direct:
            identity, message = hub.direct[0]
            # Somebody who is no peer and cannot be reached now asks again later.
            self._send_one(identity, v.pack(message))
            hub.direct.popleft()
        if not hub.dirty:
            return
        for identity, peer in list(hub.dirty.items()):
            outcome = self._send_words(identity, peer)
            if outcome is None:
                hub.lose(peer, "it has gone")
            elif outcome:
                del hub.dirty[identity]

    def _send_words(self, identity: bytes, peer: Peer) -> bool | None:
        """Send all that is to be said to a peer, in more than one message where it has to be; what is not sent stays.

        What is confirmed is said with the last part, because it must not be known before the answers that go with it.
        """
        while True:
            part = len(peer.words)
            data = v.pack([v.WORDS, peer.confirmed, peer.words])
            while part and len(data) > self._limit:
                part //= 2
                data = v.pack([v.WORDS, peer.told, peer.words[:part]])
            if part < len(peer.words) and not part:
                word = peer.words.pop(0)
                self._hub.counters.words_too_long += 1
                logs.error("link.word_too_long", shard=peer.lease.shard, kind=word[0], limit=self._limit)
                continue
            outcome = self._send_one(identity, data)
            if not outcome:
                return outcome
            if part == len(peer.words):
                peer.words = []
                peer.told = peer.confirmed
                return True
            del peer.words[:part]

    def _send_one(self, identity: bytes, data: bytes) -> bool | None:
        """True: sent. False: the peer's queue is full. None: there is no such peer."""
        try:
            self._socket.send(identity, _NOBLOCK_MORE)
            self._socket.send(data, _NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return None
            raise
        return True

    def close(self) -> None:
        """Close the socket; what is queued has half a second to leave."""
        self._socket.close()
