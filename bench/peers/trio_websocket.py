"""trio-websocket: `serve_websocket`, one trio task for each connection. Also what `farm bench connect` measures beside
a farm."""

from bench.peers.base import PythonPeer


class TrioWebSocket(PythonPeer):
    """See servers/trio_websocket_server.py for its settings."""

    name = "trio-websocket"
    title = "trio-websocket"
    hint = "pip install trio-websocket"
    package = "trio-websocket"
    module = "trio_websocket"
    script = "trio_websocket_server.py"
