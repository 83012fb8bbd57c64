"""Node's `ws`."""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.peers.base import SCRIPTS, Peer, Ports, Tools, ask, program


class NodeWs(Peer):
    """See servers/ws_server.mjs for its settings."""

    name = "ws"
    title = "Node ws"
    hint = "npm install ws, then NODE_PATH or --node-modules with its folder"

    def find(self, tools: Tools) -> str:
        node = program("node")
        # `ws` takes `bufferutil` for masking where it is installed, too
        code = "let more = ''; try { require('bufferutil'); more = ', bufferutil'; } catch {} "
        code += "console.log(require('ws/package.json').version + ' on Node ' + process.version + more)"
        return ask([node, "-e", code], "no ws in NODE_PATH or --node-modules", self.environment(tools))

    def command(self, tools: Tools, ports: Ports, folder: Path) -> list[str]:
        return [program("node"), str(SCRIPTS / "ws_server.mjs"), str(ports.device), str(ports.push)]

    def environment(self, tools: Tools) -> Mapping[str, str]:
        """Node looks for modules in NODE_PATH, here also in a `node_modules` of the folder that was named, or of the
        current one."""
        named = Path(tools.node_modules or ".").resolve()
        places = [str(named), str(named / "node_modules"), os.environ.get("NODE_PATH", "")]
        return {"NODE_PATH": os.pathsep.join(filter(None, places))}
