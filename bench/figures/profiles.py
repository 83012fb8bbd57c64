"""The instances that `farm bench instances` imitates: memory, virtual CPUs, and the share of a core of here. Pure.

One ECU (EC2 compute unit) is, in the words of 2013, "the equivalent CPU capacity of a 1.0-1.2 GHz 2007 Opteron". What
part of a core of here that is follows from two figures:

- the clock of this core, measured (`bench.machine.calibration`), in GHz
- work a clock, against that Opteron: `WORK_PER_CLOCK`. By AWS's own rating, c5.large of 2017 (one core of about
  3.5 GHz, as two threads) has 10 ECU, of which one thread alone gets some 8 when the other is idle: 8 x 1.1 GHz / 3.5
  GHz = 2.5. Cores of 2022 do 30 to 45 % more a clock than those of 2017: 3.3 to 3.6. We take 3.0.

A core of 3.2 GHz then has 3.2 x 3.0 / 1.1 = 8.7 ECU, and a profile of one ECU gets 11 % of it. The higher the figure,
the less CPU a profile gets; `--ecu-per-core` puts another in its place.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

GIB: Final = 1 << 30
OPTERON_GHZ: Final = 1.1
WORK_PER_CLOCK: Final = 3.0

USED_DESCRIPTORS: Final = 0.92
"""Of a worker's: connections spread over the listeners by a hash, not evenly."""
MOST_A_WORKER: Final = 100_000
"""More than that is too much to lose at once, however many descriptors there are."""
CONNECTION_BYTES: Final = 4_500
"""What a connection takes of the farm's memory, kernel's part included, before it was measured."""
FARM_BYTES: Final = 60 << 20
WORKER_BYTES: Final = 7 << 20
"""Private memory of the supervisor, the fork server and the router together, and of each worker, with no connection."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An instance. `ecu`: its CPU of 2013, None where its virtual CPUs are counted as cores of here. `pushgo`: the
    connections that PushGo was said to hold on it in 2013."""

    name: str
    memory: int
    vcpus: float
    ecu: float | None = None
    pushgo: int | None = None
    about: str = ""


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("small", int(1.7 * GIB), 1, 1, 24_000, "m1.small of 2013"),
        Profile("medium", int(3.75 * GIB), 1, 2, 120_000, "m1.medium of 2013"),
        Profile("large", int(7.5 * GIB), 2, 4, 200_000, "m1.large of 2013"),
        Profile("t4g.nano", GIB // 2, 2),
        Profile("t4g.small", 2 * GIB, 2),
        Profile("c7g.medium", 2 * GIB, 1),
        Profile("c7g.large", 4 * GIB, 2),
        Profile("r7g.large", 16 * GIB, 2),
    )
}
PUBLISHED: Final = tuple(name for name, profile in PROFILES.items() if profile.pushgo)


@dataclass(frozen=True, slots=True)
class Share:
    """CPU for a profile on this machine: cores, or a part of one; None if all of this machine's cores are to be used.
    `reason` says how it came about."""

    cpus: float | None
    reason: str


def ecu_per_core(clock_ghz: float) -> float:
    """What a core of this clock has in ECU."""
    return clock_ghz * WORK_PER_CLOCK / OPTERON_GHZ


def share_of(profile: Profile, ecu: float, cores: int) -> Share:
    """The CPU that a profile gets on a machine of so many cores, each of so many ECU."""
    if profile.ecu is not None:
        cpus = profile.ecu / ecu
        reason = f"{profile.ecu:g} ECU of {ecu:.2f} a core"
    else:
        cpus = profile.vcpus
        reason = f"{profile.vcpus:g} vCPU as cores of this machine"
    if cpus >= cores:
        short = f", capped at the {cores} that there are, shared with the load" if cpus > cores else ", all there are"
        return Share(None, f"{reason}: {cores} cores{short}")
    return Share(cpus, f"{reason}: {cpus:.3f} of a core" if cpus < 1 else f"{reason}: {cpus:g} cores")


def parse_memory(text: str) -> int:
    """Bytes of `4GiB`, `300MiB`, `1.7G`; units are powers of 1024.

    Raises:
      ValueError: it is not understood, or not above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no amount of memory: 300MiB, 4GiB")
    amount = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    if amount <= 0:
        raise ValueError(f"{text!r} is no memory at all")
    return amount


def a_worker(descriptors: int) -> int:
    """Devices that one worker is planned for, with so many descriptors for each process."""
    return max(1, min(int(descriptors * USED_DESCRIPTORS), MOST_A_WORKER))


def workers_for(devices: int, vcpus: float, descriptors: int) -> int:
    """Workers that hold so many devices: one for each virtual CPU, or more where descriptors ask for it."""
    return max(math.ceil(vcpus), math.ceil(devices / a_worker(descriptors)))


def devices_in(memory: int, descriptors: int, connection: float = CONNECTION_BYTES) -> int:
    """Devices that a farm could hold in so much memory, its workers' own included."""
    each = connection + WORKER_BYTES / a_worker(descriptors)
    return max(0, int((memory - FARM_BYTES) / each))


def dollars_a_million(price: float | None, devices: int) -> float | None:
    """Dollars a month for a million devices, on instances of this price that hold so many each."""
    return price * 1e6 / devices if price is not None and devices else None
