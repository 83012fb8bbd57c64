"""Goes through the keys of a farm in Redis, a part at a time, and deletes what has expired."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import hiredis

from router.store.memory import HEAD_GRACE
from router.store.redis_connection import Command, Connection, checked
from router.store.redis_keys import fence
from router.store.redis_rows import GRACE_S
from router.store.redis_scripts import sweep_script

_SCANNED: Final = 1000
"""Keys of the server that are looked at in one step for those of this farm."""
_KEYS_A_CALL: Final = 100
_KINDS: Final = {b"i": b"i", b"r": b"r", b"h": b"h"}


class Sweeper:
    """Where a round through all keys stands. prefix, bases: as in `router.store.redis_keys`. router: its number."""

    def __init__(self, prefix: str, bases: Sequence[bytes], router: int) -> None:
        self._pattern = f"{prefix}:{{*".encode()
        self._places = {base: place for place, base in enumerate(bases)}
        self._router = router
        self._cursor: bytes | None = None
        """None: the round is to begin. b"0": all keys have been seen."""
        self._keys: deque[tuple[bytes, bytes, bytes]] = deque()
        """To be looked at: beginning, kind, and the rest of the name."""

    async def sweep(self, connection: Connection, tokens: Mapping[int, bytes], now: int, budget: int) -> int:
        """See `Store.sweep`.

        Raises: StoreError.
        """
        looked = deleted = 0
        scans = 3 + budget // _KEYS_A_CALL
        while looked < budget and deleted < budget:
            if not self._keys:
                if self._cursor == b"0" or not scans:
                    break
                scans -= 1
                await self._scan(connection)
                continue
            some = [self._keys.popleft() for _ in range(min(len(self._keys), _KEYS_A_CALL, budget - looked))]
            mine = [key for key in some if self._places[key[0]] in tokens]
            if not mine:
                continue
            try:
                seen, gone, done, cursor = checked(
                    await self._call(connection, mine, tokens, now, budget - deleted), connection.name
                )
            except BaseException:
                self._keys.clear()
                self._cursor = None
                raise
            looked += max(seen, 1)
            deleted += gone
            rest = mine[done:]
            if rest and cursor != b"0":
                rest[0] = (*rest[0][:2], cursor)
            self._keys.extendleft(reversed(rest))
        if not self._keys and self._cursor == b"0":
            self._cursor = None
        return int(deleted)

    async def _scan(self, connection: Connection) -> None:
        cursor = self._cursor or b"0"
        self._cursor, keys = await connection.ask("SCAN", cursor, "MATCH", self._pattern, "COUNT", _SCANNED)
        for key in keys:
            base, brace, rest = key.partition(b"}:")
            base += brace
            if base not in self._places:
                continue
            if rest == b"full":
                self._keys.append((base, b"f", b"0"))
            elif rest[:1] in _KINDS and rest[1:2] == b":":
                self._keys.append((base, rest[:1], rest[2:]))

    async def _call(
        self,
        connection: Connection,
        keys: Sequence[tuple[bytes, bytes, bytes]],
        tokens: Mapping[int, bytes],
        now: int,
        budget: int,
    ) -> object:
        script = sweep_script()
        arguments = [part for base, kind, name in keys for part in (base, tokens[self._places[base]], kind, name)]
        head: Command = (b"EVALSHA", script.name, 1, fence(keys[0][0]), now, GRACE_S, self._router, HEAD_GRACE, budget)
        (reply,) = await connection.call((*head, *arguments))
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            await connection.ask("SCRIPT", "LOAD", script.text)
            (reply,) = await connection.call((*head, *arguments))
        return reply
