"""How many devices a run has, what they do, and how many processes hold them."""

import math
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from bench.errors import BenchError
from bench.load.protocols import REFERENCE
from bench.load.reconnect import Backoff

DEVICES_A_PROCESS: Final = 18_000
SPARE_DESCRIPTORS: Final = 200


class Way(NamedTuple):
    """How the devices of a load process are connected. `arguments`: of their protocol; `port`: that they connect to, 0:
    that of all devices."""

    arguments: Mapping[str, Any]
    port: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """How devices are brought up. `opening`: set-ups under way at once in all; 0: by the farm's listeners. `timeout`: s
    for one. Every `endpoints_every`-th device reports its push endpoints; 0: none. `protocol` and `arguments`: what
    devices say, see `bench.load.protocols`; `bare`: the protocol of that name. Each has `channels` channels, with the
    numbers from device * channels; or, with `shared`, only the one channel device % shared. `ping`: s between two pings
    of a device; 0: none. `payload`: bytes of data in every push that devices check; 0: they don't look. `backoff`:
    devices that lose their connection come back; None: they don't. `sources`: addresses that they connect from in turn,
    see `bench.load.sockets`. `ways`: of the load processes, in turn, in the place of `arguments`; there are as many
    processes at least. `tls`: devices connect with TLS."""

    devices: int
    bare: bool = False
    rate: float = 0.0
    processes: int = 0
    opening: int = 0
    timeout: float = 30.0
    endpoints_every: int = 0
    protocol: str = REFERENCE.name
    arguments: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 1
    ping: float = 0.0
    payload: int = REFERENCE.payload
    backoff: Backoff | None = None
    sources: tuple[str, ...] = ()
    shared: int = 0
    ways: tuple[Way, ...] = ()
    tls: bool = False


def most_a_process() -> int:
    """How many devices one process holds, for the descriptors that it may open."""
    return min(DEVICES_A_PROCESS, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_DESCRIPTORS)


def processes_for(load: Load) -> int:
    """How many processes hold this many devices.

    Raises:
      BenchError: as many as were asked for can't.
    """
    most = most_a_process()
    needed = math.ceil(load.devices / most)
    if load.processes and load.processes < needed:
        raise BenchError(f"{load.devices} devices need {needed} load processes of at most {most} sockets each")
    return min(max(load.processes or needed, len(load.ways)), load.devices)
