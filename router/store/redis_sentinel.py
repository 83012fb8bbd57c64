"""Which server is the primary, as Sentinels say."""

from __future__ import annotations

import dataclasses

import trio

from router.common.redis_address import Address, parse, parse_sentinel
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.redis_connection import Connection, connect


def place(options: RedisOptions) -> str:
    """Where the primary is, as far as that is known without asking."""
    return f"of the Sentinels' {options.sentinel_name}" if options.sentinels else str(parse(options.url))


async def connect_to_primary(options: RedisOptions) -> Connection:
    """A connection to the server of `redis.url`, or to the one that `redis.sentinels` name.

    Raises: StoreError.
    """
    address = parse(options.url)
    if options.sentinels:
        address = await _primary(options, address)
    return await connect(address, options.connect_timeout, options.ca_file)


async def _primary(options: RedisOptions, address: Address) -> Address:
    """Of the first Sentinel that answers: they are all asked at once, for one that is away is waited for long."""
    problems: dict[str, str] = {}
    primaries: list[list[bytes]] = []

    async def ask(text: str) -> None:
        try:
            found = await _asked(options, parse_sentinel(text))
        except StoreError as error:
            problems[text] = str(error)
            return
        if found is not None:
            primaries.append(found)
            nursery.cancel_scope.cancel()
        problems[text] = f"Sentinel {parse_sentinel(text)} knows no {options.sentinel_name} (redis.sentinel_name)"

    async with trio.open_nursery() as nursery:
        for text in options.sentinels:
            nursery.start_soon(ask, text)
    if not primaries:
        raise StoreError(*(problems[text] for text in options.sentinels))
    host, port = primaries[0]
    return dataclasses.replace(address, host=host.decode(), port=int(port))


async def _asked(options: RedisOptions, address: Address) -> list[bytes] | None:
    connection = await connect(address, options.connect_timeout, options.ca_file, "redis.sentinels")
    try:
        with trio.fail_after(options.connect_timeout):
            found: list[bytes] | None = await connection.ask(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", options.sentinel_name
            )
            return found
    except trio.TooSlowError:
        raise StoreError(f"Sentinel {address} does not answer within redis.connect_timeout") from None
    finally:
        connection.abandon()
