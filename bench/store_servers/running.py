"""The servers of a store that run, and what they say of what they hold."""

import socket
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError
from bench.store_servers import resp
from bench.store_servers.choices import StoreChoice


@dataclass(frozen=True, slots=True)
class StoreServers:
    """Servers that run. `ports`, `pids`: the primary's first; `settings`: of the farm, so that it uses them."""

    choice: StoreChoice
    version: str
    ports: list[int]
    pids: list[int]
    settings: tuple[str, ...]

    def memory(self) -> dict[str, Any] | None:
        """What is stored now: `bytes` of data, and `keys`; None if the server does not answer."""
        try:
            if self.choice.program == "memcached":
                stats = _statistics(self.ports[0])
                return {"bytes": int(stats["bytes"]), "keys": int(stats["curr_items"])}
            return {"bytes": resp.data_bytes(self.ports[0]), "keys": int(resp.ask(self.ports[0], "DBSIZE"))}
        except (OSError, BenchError, KeyError, ValueError):
            return None

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return described(self.choice) | {"version": self.version}


def described(choice: StoreChoice) -> dict[str, Any]:
    """A choice for JSON."""
    return {"name": choice.name, "title": choice.title, "promise": choice.promise, "servers": choice.servers}


def _statistics(port: int) -> dict[str, str]:
    """What memcached's `stats` says."""
    with socket.create_connection(("127.0.0.1", port), timeout=resp.SECONDS) as connection:
        connection.sendall(b"stats\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n") and (part := connection.recv(resp.READ_BYTES)):
            answer += part
    words = (line.split(" ", 2) for line in answer.decode().splitlines() if line.startswith("STAT "))
    return {name: value for _, name, value in words}
