"""`farm bench plan`: how many instances a number of devices takes, from what was measured. Pure.

Every figure says whether it was measured, given, assumed, or extrapolated, and from what (`bench.figures.evidence`).

Devices are spread evenly over the instances. Each instance is a farm of its own (its routers, its own store), and app
servers push to the endpoints, which name the instance; or, with `--hosts`, all are one farm (`bench.figures.hosts`).
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from bench.errors import BenchError
from bench.figures.evidence import ASSUMED, EXTRAPOLATED, GIVEN, MEASURED, Evidence, Pushes, evidence
from bench.figures.hosts import Hosts, hosts_of
from bench.figures.hosts_store import HostsWish
from bench.figures.profiles import MOST_A_WORKER, Profile

HEADROOM: Final = 0.7
SYSTEM_BYTES: Final = 200 << 20
"""Memory that the instance's own system takes: kernel, init, sshd, an agent or two."""
SPARE_DESCRIPTORS: Final = 64
"""Of a worker, beside its connections: what a farm keeps back."""
FEW: Final = 1000
UNITS: Final = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
MOST_DEVICES: Final = 1e12
CORES: Final = (2, 4, 8, 16)
"""For which the pushes of one farm are said, where they were measured with different numbers of routers."""

HOW_TO: Final = (
    "farm bench connect --devices 15000 --push 20000 --json measured.json (or farm bench instances PROFILE --json ...)"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is planned. `push_rate`: notifications a second, to all devices together; `price`: dollars a month for an
    instance; `headroom`: the share of a measured ceiling that is used; `system`: bytes kept for the instance's own
    system; `descriptors`: connections that one worker may hold. `hosts`: the instances are hosts of one farm; None:
    each is a farm of its own."""

    devices: int
    push_rate: float
    profile: Profile
    price: float | None = None
    headroom: float = HEADROOM
    spare: int = 1
    system: int = SYSTEM_BYTES
    descriptors: int = MOST_A_WORKER
    hosts: HostsWish | None = None


def parse_count(text: str) -> float:
    """`31e6`, `31M`, `2.5k`, `2,000`.

    Raises:
      ValueError: it is no number, or below zero.
    """
    match = re.fullmatch(r"(\d[\d,_]*(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([KMG]?)", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no number: 2000, 31e6, 31M")
    value = float(re.sub("[,_]", "", match[1])) * UNITS[match[2].upper()]
    if value > MOST_DEVICES:
        raise ValueError(f"{text!r} is more than {MOST_DEVICES:.0e}")
    return value


def run(wish: Wish, documents: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The plan, as the fields of its JSON: `instances`, and `figures` in the order of the reasoning, each with `name`,
    `value`, `unit`, `kind` (measured, extrapolated, assumed, given) and `source`.

    Raises:
      BenchError: what was measured does not suffice, or no instance of this profile holds a single device.
    """
    if not documents:
        raise BenchError(f"a plan needs a measured result: make one with {HOW_TO}, then add --result measured.json")
    found = evidence(wish.profile, documents)
    missing = _missing(wish, found)
    if missing:
        unused = f" (left out: {'; '.join(found.unused)})" if found.unused else ""
        raise BenchError(f"the results do not say {missing}{unused}")
    return _Plan(wish, found).fields()


def _missing(wish: Wish, found: Evidence) -> str:
    if not found.memory:
        return f"what a connection takes: add one of {HOW_TO}"
    if wish.push_rate and not found.pushes:
        return "how many pushes/s a farm takes: add one of farm bench push --json pushed.json, or plan --push-rate 0"
    return ""


class _Plan:
    """Takes the figures one by one, each with where it comes from."""

    def __init__(self, wish: Wish, found: Evidence) -> None:
        self.wish = wish
        self.found = found
        self.figures: list[dict[str, Any]] = []
        # what was measured with the most devices is the nearest to a full instance
        self.memory = max(found.memory, key=lambda memory: memory.devices)

    def add(self, key: str, name: str, value: float | None, unit: str, kind: str, source: str) -> None:
        figure = {"key": key, "name": name, "value": value, "unit": unit, "kind": kind, "source": source}
        self.figures.append(figure)

    def fields(self) -> dict[str, Any]:
        wish = self.wish
        self.add("devices", "devices wanted", wish.devices, "", GIVEN, "--devices")
        self.add("push_rate", "notifications/s wanted", wish.push_rate, "/s", GIVEN, "--push-rate")
        self.add("instance_memory", "memory of an instance", wish.profile.memory, "bytes", GIVEN, wish.profile.name)
        self.add("instance_vcpus", "virtual CPUs of an instance", wish.profile.vcpus, "", GIVEN, wish.profile.name)
        most = self._most_devices()
        by = {"devices": math.ceil(wish.devices / most)}
        self.add(
            "instances_for_devices",
            "instances for the devices",
            by["devices"],
            "",
            EXTRAPOLATED,
            "devices wanted / most",
        )
        if wish.push_rate:
            by |= self._for_pushes()
        serving = max(by.values())
        reason = " and ".join(name for name, count in by.items() if count == serving)
        self.add("instances_serving", "instances that serve", serving, "", EXTRAPOLATED, f"decided by: {reason}")
        self.add(
            "instances_spare", "spare instances (N+1)", wish.spare, "", GIVEN, "--spare: all are used, so many may fail"
        )
        total, kind, text = serving + wish.spare, EXTRAPOLATED, "those that serve and the spare"
        if wish.hosts is not None:
            name = wish.profile.name
            total = hosts_of(wish.hosts, serving, wish.spare, most, wish.devices, name)
            if wish.hosts.count:
                serving, kind, text = total - wish.spare, GIVEN, "--hosts"
        self.add("instances", "instances in all", total, "", kind, text)
        workers = self._an_instance(serving, total)
        price = self._cost(total)
        return {
            "profile": {
                "name": wish.profile.name,
                "memory": wish.profile.memory,
                "vcpus": wish.profile.vcpus,
                "about": wish.profile.about,
            },
            "instances": total,
            "decided_by": reason,
            "by": by,
            "farm": self._hosts(total, serving, workers, price),
            "figures": self.figures,
            "notes": self._notes(),
        }

    def _hosts(self, total: int, serving: int, workers: int, price: float | None) -> dict[str, Any] | None:
        """What the instances are as hosts of one farm; None: they are not."""
        wish = self.wish
        if wish.hosts is None:
            return None
        hosts = Hosts(
            self.add,
            wish.hosts,
            self.found,
            self.memory,
            wish.devices,
            wish.push_rate,
            wish.headroom,
            wish.profile.vcpus,
            total,
            serving,
            workers,
        )
        return hosts.figures(price)

    def _most_devices(self) -> int:
        """Devices that one instance is planned for."""
        wish, memory = self.wish, self.memory
        self.add("connection", "memory a connection", memory.connection, "bytes", MEASURED, memory.source)
        if memory.kernel is not None:
            self.add("kernel", "of it the kernel's", memory.kernel, "bytes", MEASURED, memory.source)
        self.add("base", "memory of a farm without devices", memory.base, "bytes", memory.base_kind, memory.base_from)
        self.add("system", "memory for the instance's own system", wish.system, "bytes", ASSUMED, "--system")
        if self.found.ceilings:
            best = max(self.found.ceilings, key=lambda ceiling: ceiling.devices)
            source = f"{best.source}, until its {best.limit}"
            self.add("ceiling", "devices until the limit", best.devices, "", MEASURED, source)
            ceiling = best.devices - wish.system / memory.connection
            text = "the measured ceiling less the system's memory"
        else:
            a_device = memory.connection + memory.worker / wish.descriptors
            ceiling = (wish.profile.memory - wish.system - memory.base) / a_device
            times = ceiling / memory.devices
            text = f"from its memory by that of {memory.devices:,} devices, {times:,.1f} times as many"
        self.add("usable_ceiling", "devices until memory is full", max(0, int(ceiling)), "", EXTRAPOLATED, text)
        self.add("headroom", "share of it that is used", wish.headroom, "share", ASSUMED, "--headroom")
        most = int(ceiling * wish.headroom)
        if most < 1:
            raise BenchError(
                f"{wish.profile.name} holds no device: {wish.profile.memory >> 20} MiB, of which the system takes "
                f"{wish.system >> 20} MiB and a farm without devices {int(memory.base) >> 20} MiB"
            )
        self.add(
            "most", "devices an instance, at most", most, "", EXTRAPOLATED, "those until memory is full x the share"
        )
        return most

    def _for_pushes(self) -> dict[str, int]:
        """Instances for the pushes: by what one router takes, and by CPU."""
        wish = self.wish
        best = self._best_pushes()
        self.add("router_rate", "notifications/s that one farm delivered", best.rate, "/s", MEASURED, best.source)
        router = wish.headroom * best.rate
        self.add(
            "most_pushes", "notifications/s an instance, at most", router, "/s", EXTRAPOLATED, "that x the share used"
        )
        by_router = math.ceil(wish.push_rate / router)
        text = f"notifications/s wanted / most, with {best.routers} router{'s' * (best.routers > 1)}"
        self.add("instances_for_pushes", "instances for the pushes", by_router, "", EXTRAPOLATED, text)
        self.add(
            "push_cpu", "CPU of a push flat out", best.cpu * 1e6, "us", MEASURED, f"{best.source}; router and workers"
        )
        by_cpu = math.ceil(wish.push_rate * best.cpu / (wish.headroom * wish.profile.vcpus))
        text = "CPU of the pushes / (virtual CPUs x the share used)"
        self.add("instances_for_cpu", "instances for the CPU of the pushes", by_cpu, "", EXTRAPOLATED, text)
        self._by_cores()
        return {"pushes": by_router, "CPU": by_cpu}

    def _by_cores(self) -> None:
        """What one farm delivers by its cores, each time with the number of routers that delivers most. Each of
        K routers forwards (K - 1) / K of what comes to it, and what a push costs more is taken to grow with that."""
        fastest: dict[int, Pushes] = {}
        for one in self.found.pushes:
            if (
                one.flat_out
                and one.router_cpu
                and one.rate > (fastest[one.routers].rate if one.routers in fastest else 0)
            ):
                fastest[one.routers] = one
        if 1 not in fastest or len(fastest) == 1:
            return
        for routers, one in sorted(fastest.items()):
            name = f"CPU of a push flat out, {routers} router{'s' * (routers > 1)}"
            self.add(f"push_cpu_{routers}", name, one.cpu * 1e6, "us", MEASURED, one.source)
        alone, many = fastest[1], fastest[max(fastest)]
        share = (many.routers - 1) / many.routers

        def most(cores: int, routers: int) -> float:
            forwarded = (routers - 1) / routers / share
            cpu = alone.cpu + (many.cpu - alone.cpu) * forwarded
            of_routers = alone.router_cpu + (many.router_cpu - alone.router_cpu) * forwarded
            return self.wish.headroom * min(cores / cpu, routers / of_routers)

        for cores in CORES:
            routers = max(range(1, cores + 1), key=lambda routers: most(cores, routers))
            text = (
                f"with {routers} router{'s' * (routers > 1)}: the cores or the routers are full, by the CPU of a push "
                f"with 1 and with {many.routers}; x the share used"
            )
            name = f"notifications/s of a farm on {cores} cores"
            self.add(f"most_pushes_{cores}", name, most(cores, routers), "/s", EXTRAPOLATED, text)

    def _best_pushes(self) -> Pushes:
        """The fastest run, of this very instance if there is one; runs at a rate only where none was flat out."""
        runs = [one for one in self.found.pushes if one.own] or self.found.pushes
        runs = [one for one in runs if one.flat_out] or runs
        return max(runs, key=lambda one: one.rate)

    def _an_instance(self, serving: int, total: int) -> int:
        wish, memory = self.wish, self.memory
        usual, worst = math.ceil(wish.devices / total), math.ceil(wish.devices / serving)
        self.add(
            "devices_usual", "devices an instance, all up", usual, "", EXTRAPOLATED, "devices wanted / instances in all"
        )
        text = f"the same with {wish.spare} down" if wish.spare else "there is no spare"
        self.add("devices_worst", "devices an instance, spare ones down", worst, "", EXTRAPOLATED, text)
        workers = max(math.ceil(wish.profile.vcpus), math.ceil(worst / wish.descriptors))
        text = f"one a virtual CPU, and at most {wish.descriptors:,} devices each (--worker-devices)"
        self.add("workers", "workers an instance", workers, "", ASSUMED, text)
        nofile = math.ceil(worst / workers) + SPARE_DESCRIPTORS
        text = f"devices of a worker, and {SPARE_DESCRIPTORS} more; LimitNOFILE of the unit must be above"
        self.add("descriptors", "descriptors a worker needs", nofile, "", EXTRAPOLATED, text)
        for key, name, devices in (("usual", "all up", usual), ("worst", "spare ones down", worst)):
            used = wish.system + memory.base + (workers - 1) * memory.worker + devices * memory.connection
            text = "system, farm, workers, and devices x memory a connection"
            self.add(f"memory_{key}", f"memory an instance, {name}", used, "bytes", EXTRAPOLATED, text)
            text = "of the instance's memory"
            self.add(
                f"memory_share_{key}",
                f"the same as a share, {name}",
                used / wish.profile.memory,
                "share",
                EXTRAPOLATED,
                text,
            )
        self._cpu(serving, worst)
        if memory.setup_rate:
            text = f"at {memory.setup_rate:,.0f} set-ups/s of {memory.source}"
            back = worst / memory.setup_rate
            self.add("back", "until all devices of an instance are back", back, "s", EXTRAPOLATED, text)
        return workers

    def _cpu(self, serving: int, worst: int) -> None:
        wish, cores = self.wish, 0.0
        sources = []
        if self.found.idle:
            idle = max(self.found.idle, key=lambda one: one.cores)
            cores += idle.cores * worst
            sources.append(f"devices: {idle.source}")
        if wish.push_rate:
            rate = wish.push_rate / serving
            # a slow run costs more CPU a push, since fewer pushes share a wake-up: the nearest one tells best
            nearest = min(self.found.pushes, key=lambda one: abs(math.log(max(one.rate, 1e-9) / rate)))
            cores += nearest.cpu * rate
            sources.append(f"{rate:,.0f} pushes/s: {nearest.source} ({nearest.rate:,.0f}/s)")
            if nearest.p99 is not None:
                text = f"{nearest.source}, {nearest.rate:,.0f}/s"
                self.add("p99", "PUT to frame, p99, in that run", nearest.p99, "ms", MEASURED, text)
        if sources:
            self.add("cores", "cores an instance, spare ones down", cores, "", EXTRAPOLATED, "; ".join(sources))
            text = "of its virtual CPUs, each taken as fast as a core of the measurement"
            self.add("cpu_share", "the same as a share", cores / wish.profile.vcpus, "share", EXTRAPOLATED, text)

    def _cost(self, total: int) -> float | None:
        wish = self.wish
        price, source = wish.price, "--price"
        if price is None and self.found.prices:
            price, source = self.found.prices[-1]
        if price is None:
            return None
        self.add("price", "dollars a month for an instance", price, "$", GIVEN, source)
        self.add("cost", "dollars a month for all", price * total, "$", EXTRAPOLATED, "instances in all x price")
        cost = price * total / wish.devices * 1e6
        self.add(
            "cost_a_million", "dollars a month for a million devices", cost, "$", EXTRAPOLATED, "by devices wanted"
        )
        return price

    def _notes(self) -> list[str]:
        wish = self.wish
        notes = [
            "The instances are hosts of one farm. A load balancer or DNS spreads devices and app servers over all of "
            "them; what is accepted lies in Redis or Valkey"
            if wish.hosts is not None
            else "Each instance is a farm with routers and a store of its own. A load balancer or DNS spreads the "
            "devices; an endpoint names the instance that gave it out",
            f"A worker of {wish.descriptors:,} devices needs a raised descriptor limit (the unit of deploy/ sets it); "
            "farm doctor --connections N says what an instance lacks",
        ]
        if wish.price is None and not self.found.prices:
            notes.append("No price was given, so no cost: --price DOLLARS_A_MONTH")
        if self.memory.devices < FEW:
            notes.append(
                f"Only {self.memory.devices:,} devices were measured: what a farm allocates once weighs on each of them"
            )
        if not self.found.ceilings:
            notes.append(
                f"No ceiling of {wish.profile.name} was measured (farm bench instances): memory alone decides here"
            )
        if not self.found.idle:
            notes.append("CPU of silent devices and their pings is not in it: an instances result has that")
        return notes + [f"Left out: {text}" for text in self.found.unused]
