"""Other servers that `farm bench compare` puts beside a farm. Each is one module, with what installs it and its
settings; those that are libraries are used by a script in `servers`."""

from typing import Final

from bench.peers.base import Peer
from bench.peers.nats import Nats
from bench.peers.nchan import Nchan
from bench.peers.node_ws import NodeWs
from bench.peers.trio_websocket import TrioWebSocket
from bench.peers.uwebsockets import UWebSockets
from bench.peers.websockets import WebSockets

PEERS: Final[dict[str, Peer]] = {
    peer.name: peer for peer in (TrioWebSocket(), WebSockets(), NodeWs(), Nchan(), Nats(), UWebSockets())
}
