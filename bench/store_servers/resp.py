"""Commands to Redis and Valkey, a connection for each: for what is asked beside the load."""

import socket
from typing import Any, Final

import hiredis

from bench.errors import BenchError

SECONDS: Final = 10.0
READ_BYTES: Final = 65_536


def ask(port: int, *command: str | int) -> Any:
    """The reply of a server on loopback; a map as a flat list, as RESP2 has it.

    Raises:
      OSError: it does not answer.
      BenchError: it refuses.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(_packed(*command))
        reader = hiredis.Reader(encoding="utf-8", errors="replace")
        while (reply := reader.gets()) is False:
            data = connection.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError(f"port {port} was closed")
            reader.feed(data)
    if isinstance(reply, hiredis.ReplyError):
        raise BenchError(f"{command[0]}: {reply}")
    return reply


def _packed(*command: str | int) -> bytes:
    words: Any = command  # the stub of hiredis has a tuple of one
    return bytes(hiredis.pack_command(words))


def pairs(reply: list[Any]) -> dict[str, Any]:
    """A flat list as a map."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


def data_bytes(port: int) -> int:
    """What the data takes of a server's memory, the tables of its keys included: not its connections, its buffers, and
    what it keeps for replicas."""
    stats = pairs(ask(port, "MEMORY", "STATS"))
    tables = 0
    for name, value in stats.items():
        if name.startswith("db.") and isinstance(value, list):
            tables += sum(number for key, number in pairs(value).items() if key.startswith("overhead.hashtable"))
    return int(stats["dataset.bytes"]) + tables


def writes_reach(port: int, replicas: int, synced: bool) -> bool:
    """Whether a write is with so many replicas within a second. synced: on their disks, too, and on the server's."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        wait = ("WAITAOF", 1, replicas, 1000) if synced else ("WAIT", replicas, 1000)
        connection.sendall(_packed("SET", "bench:followed", 1) + _packed(*wait))
        reader, replies = hiredis.Reader(), list[Any]()
        while len(replies) < 2:
            reader.feed(connection.recv(READ_BYTES))
            while (reply := reader.gets()) is not False:
                replies.append(reply)
    reached = replies[1]
    return bool(reached[1] >= replicas if synced and isinstance(reached, list) else reached == replicas)
