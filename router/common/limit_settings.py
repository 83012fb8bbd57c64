"""The section of the settings that says how much one client may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from router.common.options import Section, option


@dataclass(frozen=True)
class LimitOptions(Section):
    SECTION: ClassVar[str] = "limits"
    HELP: ClassVar[str] = (
        "How much one client may ask for. What is beyond waits, or is refused and told when to come again. Addresses "
        "are IPv4 addresses and /64 networks of IPv6. Proxies (listen.proxy_from, listen.forwarded_from) are not "
        "counted, but the clients that they name. A rate has a burst: burst_seconds."
    )

    commands_per_second: int = option(
        200, "messages of a device, an ack counting as often as it names updates; 0: no limit", unit="messages", ge=0
    )
    registrations_per_second: int = option(20, "channels that a device registers; 0: no limit", unit="channels", ge=0)
    setups_per_second: int = option(
        0,
        "connections that a worker accepts on the device port; further ones wait in the kernel's queue, which then is "
        "no longer than what is accepted in half of worker.accept_patience; 0: no limit",
        unit="connections",
        ge=0,
    )
    setups_wait: float = option(
        5.0,
        "a device that would wait there for longer than this is answered 503, with a Retry-After of about "
        "worker.retry_after; 0: none is",
        unit="s",
        ge=0,
    )
    burst_seconds: float = option(
        10.0,
        "who was quiet may do at once what may be done in this time, and one thing in any case",
        unit="s",
        ge=0,
        le=3600,
    )
    connections_per_address: int = option(
        0,
        "devices of one address at once, on one host; further ones are answered 429. Of several workers each allows "
        "its share and a margin, because the kernel spreads an address over them by chance: no address that has so "
        "many or fewer is refused, and with two workers one gets at most 172 where 100 are allowed, 1,224 of 1,000; "
        "0: no limit",
        unit="connections",
        ge=0,
    )
    setups_per_address: float = option(
        0.0,
        "connections a second that each worker accepts from one address; further ones are answered 429; 0: no limit",
        unit="connections",
        ge=0,
    )
    registrations_per_address: float = option(
        0.0,
        "channels a second that devices of one address register at each worker; a device that registers more is read "
        "again later; 0: no limit",
        unit="channels",
        ge=0,
    )
    registrations_per_worker: float = option(
        0.0, "the same for all devices of a worker; 0: no limit", unit="channels", ge=0
    )
    pushes_per_address: float = option(
        0.0,
        "pushes a second of one address at each router, valid or not, a line of /v1/push and an event for a channel "
        "being one; further ones are answered 429; 0: no limit",
        unit="pushes",
        ge=0,
    )
    pushes_per_application: float = option(
        0.0,
        "the same of one application, where app servers sign what they send: of a key, or of what a dialect calls an "
        "application; 0: no limit",
        unit="pushes",
        ge=0,
    )
    pushes_per_endpoint: float = option(
        0.0,
        "pushes a second to one endpoint, or events to one channel, by all app servers together and whichever router "
        "they come to; further ones are answered 429; 0: no limit",
        unit="pushes",
        ge=0,
    )
    store_bytes_per_application: int = option(
        0,
        "what the events of one application take in the store, each router an equal part of it; events beyond are "
        "refused. Who signs with a key has nothing of its own there: messages are those of devices, which have "
        "store.inbox_bytes; 0: no limit",
        unit="bytes",
        ge=0,
    )
    tracked: int = option(
        20_000,
        "addresses, app servers or endpoints that each of these rates counts one by one, in about 120 bytes each; "
        "where more come at once, those beyond share as many counters: they may be allowed less, never more",
        unit="clients",
        ge=16,
        le=100_000_000,
    )
