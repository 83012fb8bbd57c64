"""`websockets`, the asyncio library."""

from bench.peers.base import PythonPeer, Tools, ask


class WebSockets(PythonPeer):
    """See servers/websockets_server.py for its settings."""

    name = "websockets"
    title = "websockets (asyncio)"
    hint = "pip install 'websockets>=13'"
    package = "websockets"
    module = "websockets.asyncio.server"
    script = "websockets_server.py"

    def find(self, tools: Tools) -> str:
        version = super().find(tools)
        code = "import importlib.util as u; print(', uvloop' if u.find_spec('uvloop') else '')"
        return version + ask([tools.python, "-c", code], "uvloop")
