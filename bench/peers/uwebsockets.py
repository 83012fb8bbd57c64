"""uWebSockets, the C++ server, in the form that pip installs: socketify, whose handlers are Python."""

from bench.peers.base import PythonPeer


class UWebSockets(PythonPeer):
    """See servers/socketify_server.py for its settings."""

    name = "uwebsockets"
    title = "uWebSockets (socketify)"
    hint = "pip install socketify"
    set_up = "upgrade, subscribe"
    push = "PUT; 200 once it was published to the device's topic"
    package = "socketify"
    module = "socketify"
    script = "socketify_server.py"
    fans_out = True
