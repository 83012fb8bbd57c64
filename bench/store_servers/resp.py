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
    (reply,) = _replies(port, command)
    if isinstance(reply, hiredis.ReplyError):
        raise BenchError(f"{command[0]}: {reply}")
    return reply


def _replies(port: int, *commands: tuple[str | int, ...]) -> list[Any]:
    """Those to commands over one connection, in order; an error is one, too.

    Raises:
      OSError: it does not answer all of them.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(b"".join(map(_packed, commands)))
        reader, replies = hiredis.Reader(encoding="utf-8", errors="replace"), list[Any]()
        while len(replies) < len(commands):
            if (reply := reader.gets()) is not False:
                replies.append(reply)
            elif data := connection.recv(READ_BYTES):
                reader.feed(data)
            else:
                raise ConnectionResetError(f"port {port} was closed")
    return replies


def _packed(command: tuple[str | int, ...]) -> bytes:
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
    """Whether a write is with so many replicas within a second. synced: on their disks, too, and on the server's.

    Raises:
      OSError: it does not answer.
    """
    wait = ("WAITAOF", 1, replicas, 1000) if synced else ("WAIT", replicas, 1000)
    _, reached = _replies(port, ("SET", "bench:followed", 1), wait)
    return bool(reached[1] >= replicas if synced and isinstance(reached, list) else reached == replicas)
