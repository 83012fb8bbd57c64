"""The NATS server, with its WebSocket listener."""

from pathlib import Path
from typing import Any, Final

from bench.peers.base import Peer, Ports, Tools, ask, program

_CONFIGURATION: Final = """\
listen: "127.0.0.1:{push}"
max_connections: {connections}
# devices keep their connections alive by pings of their own, where they have to
ping_interval: "1h"
# no compression is its default, and a browser behind a proxy that ends TLS needs none here
websocket {{
    listen: "127.0.0.1:{device}"
    no_tls: true
    compression: false
    handshake_timeout: "60s"
}}
"""
SPARE_CONNECTIONS: Final = 1000


class Nats(Peer):
    """Written in Go: one process, whose threads use all cores."""

    name = "nats"
    title = "NATS server"
    hint = "apt-get install nats-server"
    processes = "one process, threads on all cores"
    set_up = "upgrade, connect, subscribe, ping answered"
    push = "PUB and PING over TCP; PONG once the message was taken (a client's flush)"
    wire = "nats"
    protocol = "nats"
    fans_out = True

    def find(self, tools: Tools) -> str:
        return ask([program("nats-server"), "--version"], "nats-server does not run").rpartition(" ")[2]

    def command(self, tools: Tools, ports: Ports, folder: Path) -> list[str]:
        path = folder / "nats.conf"
        connections = tools.devices + SPARE_CONNECTIONS
        path.write_text(_CONFIGURATION.format(push=ports.push, device=ports.device, connections=connections))
        return [program("nats-server"), "-c", str(path)]

    def arguments(self, ports: Ports) -> dict[str, Any]:
        return {"subject": "d.", "endpoint": f"nats://127.0.0.1:{ports.push}/d."}

    def listening(self, ports: Ports) -> dict[str, Any]:
        return {"subject": "d."}

    def event_path(self) -> str:
        return "/d.{channel}"
