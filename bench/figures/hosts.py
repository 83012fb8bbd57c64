"""`farm bench plan --hosts`: one farm on many hosts that share Redis. Pure.

A farm has R routers, each on one host at a time; every worker has a link to each of them, and every router one to each
other. Any router takes any request, and forwards what another one owns: (R - 1) / R of them. What is accepted lies in
Redis or Valkey. The figures say what that comes to, and from how many devices on cells (farms of their own, behind
names of the DNS) are the better answer.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

from bench.errors import BenchError
from bench.figures.evidence import ASSUMED, EXTRAPOLATED, GIVEN, MEASURED, Evidence, Memory, Pushes
from bench.figures.hosts_store import Add, HostsWish, StoreOfHosts
from router.common.partitions import PARTITIONS
from router.common.redis_settings import RedisOptions
from router.common.settings import MAX_ROUTERS, LinkOptions

LINK_SHARE: Final = 0.1
"""Of a router's core, for links on which nothing happens: beyond, more routers make each slower."""


def hosts_of(wish: HostsWish, needed: int, spare: int, most: int, devices: int, profile: str) -> int:
    """How many hosts there are in all.

    Raises:
      BenchError: so many do not hold the devices.
    """
    if not wish.count:
        return needed + spare
    if wish.count - spare < needed:
        held = max(0, wish.count - spare) * most
        raise BenchError(
            f"{wish.count} hosts of {profile}, {spare} of them to spare, are planned for {held:,} devices; "
            f"{devices:,}, and the pushes wanted, take {needed + spare}: --hosts {needed + spare}, a larger instance, "
            "or --headroom"
        )
    return wish.count


@dataclass(slots=True)
class Hosts:
    """Adds the figures one by one. `serving` hosts of `total` hold all devices while the spare ones are down;
    `workers`: of each."""

    add: Add
    wish: HostsWish
    found: Evidence
    memory: Memory
    devices: int
    push_rate: float
    headroom: float
    vcpus: float
    total: int
    serving: int
    workers: int

    def figures(self, price: float | None) -> dict[str, Any]:
        """All of them. price: of a host. Returns what the headline says."""
        routers = self._routers()
        self._links(routers)
        forwarded = self._forwards(routers) if self.push_rate else None
        nodes = StoreOfHosts(self.add, self.wish, self.found, self.devices, self.push_rate, self.headroom).servers()
        self._coming_and_going(routers)
        cells = self._cells(routers, forwarded)
        self._cost(nodes, price)
        return {"hosts": self.total, "routers": routers, "store_servers": nodes, "cells": cells}

    def _routers(self) -> int:
        routers = self.wish.routers or min(self.total, MAX_ROUTERS)
        kind, text = (GIVEN, "--routers") if self.wish.routers else (ASSUMED, f"one a host, at most {MAX_ROUTERS}")
        self.add("routers", "routers of the farm, each on one host at a time", routers, "", kind, text)
        most = math.ceil(routers / self.total)
        self.add("routers_a_host", "routers a host, at most", most, "", EXTRAPOLATED, "routers / hosts")
        a_router = math.ceil(self.devices / routers)
        text = f"devices wanted / routers; {PARTITIONS / routers:.3g} of {PARTITIONS} partitions"
        self.add("devices_a_router", "devices whose address a router has", a_router, "", EXTRAPOLATED, text)
        if self.memory.router is not None:
            self.add(
                "map_device", "memory of a router a device", self.memory.router, "bytes", MEASURED, self.memory.source
            )
            text = "that x devices a router; the map of the farm is no larger than that of one router"
            self.add("map_router", "memory of a router", self.memory.router * a_router, "bytes", EXTRAPOLATED, text)
        return routers

    def _links(self, routers: int) -> None:
        workers = self.workers * self.total
        self.add("workers_all", "workers of the farm", workers, "", EXTRAPOLATED, "hosts x workers")
        self.add("links", "links of workers to routers", workers * routers, "", EXTRAPOLATED, "workers x routers")
        text = "the others are Unix sockets: each router has those of its own host's workers"
        remote = workers * routers - self.workers * routers
        self.add("links_tcp", "of them TCP, between hosts", remote, "", EXTRAPOLATED, text)
        self.add("links_a_router", "links of a router to workers", workers, "", EXTRAPOLATED, "one a worker")
        peers = routers * (routers - 1)
        self.add("peers", "links between routers", peers, "", EXTRAPOLATED, "routers x (routers - 1), one a direction")
        beats = 2 * workers / LinkOptions().heartbeat
        text = f"both ways, one each {LinkOptions().heartbeat:g} s (link.heartbeat) on a link where nothing happens"
        self.add("beats", "messages/s of a router that only keep links alive", beats, "/s", EXTRAPOLATED, text)
        if (cores := self._link_cores()) is None:
            return
        of_router, of_worker, source = cores
        self.add(
            "link_router", "cores of a router for a link where nothing happens", of_router, "", EXTRAPOLATED, source
        )
        text = "that x links of a router: at most, for of many links several are handled at one wake-up"
        self.add("links_share", "of a router's core, for that", of_router * workers, "share", EXTRAPOLATED, text)
        self.add("link_worker", "cores of a worker for such a link", of_worker, "", EXTRAPOLATED, source)
        share = (of_worker * self.workers * routers + of_router * workers * routers / self.total) / self.vcpus
        text = "its workers' links and its routers': at most"
        self.add("links_host", "of a host's CPU, for all of its links", share, "share", EXTRAPOLATED, text)

    def _link_cores(self) -> tuple[float, float, str] | None:
        """Cores that a link takes of its router and of its worker, and from what; of two clusters what the one with
        more links takes more."""
        measured = [one for one in self.found.clusters if one.idle is not None]
        if not measured:
            return None
        few, most = (choose(measured, key=lambda one: one.links) for choose in (min, max))
        assert few.idle is not None and most.idle is not None
        if few.links == most.links:
            text = f"{most.source}: all that they do without a device, so at most; a result with other links says more"
            return most.idle[0] / most.links, most.idle[1] / most.links, text
        more = most.links - few.links
        text = f"what {most.source} take more than {few.source}, further workers included"
        router, worker = (max(0.0, many - fewer) / more for many, fewer in zip(most.idle, few.idle, strict=True))
        return router, worker, text

    def _forwards(self, routers: int) -> float:
        """Cores of the routers for all pushes, where batches are full."""
        share = (routers - 1) / routers
        self.add("forwarded", "share of pushes that are forwarded", share, "share", EXTRAPOLATED, "(R - 1) / R")
        workers = self.workers * self.total
        text = "notifications/s wanted / workers: what comes alone is a batch of its own, and takes more CPU"
        self.add("pushes_a_worker", "notifications/s a worker", self.push_rate / workers, "/s", EXTRAPOLATED, text)
        pushes = [one for one in self.found.pushes if one.store_cpu] or self.found.pushes
        dearest = max(pushes, key=lambda one: one.cpu)
        text = f"the dearest: {dearest.source}, {dearest.rate:,.0f}/s"
        self.add("push_cpu_small", "CPU of a push in small batches", dearest.cpu * 1e6, "us", MEASURED, text)
        cores = self.push_rate * dearest.cpu / self.total
        text = "notifications/s wanted x that / hosts"
        self.add("push_cores", "cores a host for pushes, at most", cores, "", EXTRAPOLATED, text)
        cpu, of_routers, kind, text = self._full_batches(pushes, share)
        self.add("push_cpu_full", "CPU of a push in full batches", cpu * 1e6, "us", kind, text)
        by_routers = routers / of_routers if of_routers else math.inf
        most = self.headroom * min(self.total * self.vcpus / cpu, by_routers)
        text = "until the hosts' cores or the routers are full of such, x the share used"
        self.add("most_pushes_hosts", "notifications/s of the farm, at most", most, "/s", EXTRAPOLATED, text)
        return self.push_rate * of_routers

    def _full_batches(self, pushes: list[Pushes], share: float) -> tuple[float, float, str, str]:
        """CPU seconds of a push flat out where this share is forwarded, those of the router, how that is known, and
        from what."""
        flat = [one for one in pushes if one.flat_out] or pushes
        alone = min((one for one in flat if one.routers == 1), key=lambda one: one.cpu, default=None)
        many = max((one for one in flat if one.routers > 1), key=lambda one: (one.routers, -one.cpu), default=None)
        if many is None:
            assert alone is not None
            forward = [one for one in self.found.clusters if one.forward_cpu is not None]
            if not forward:
                text = f"{alone.source}, 1 router: a forward is not in it (farm bench cluster, or push with 2 routers)"
                return alone.cpu, alone.router_cpu, MEASURED, text
            cost = share * max(0.0, forward[-1].forward_cpu or 0.0)
            text = f"{alone.source}, and {share:.0%} of a forward ({forward[-1].source})"
            return alone.cpu + cost, alone.router_cpu + cost, EXTRAPOLATED, text
        if alone is None:
            return many.cpu, many.router_cpu, MEASURED, f"{many.source}, {many.routers} routers"
        more = share / ((many.routers - 1) / many.routers)  # what forwarding adds grows with the share of it
        text = f"{alone.source}, and x {more:.2f} what it takes more in {many.source}, {many.routers} routers"
        cpu = alone.cpu + max(0.0, many.cpu - alone.cpu) * more
        return cpu, alone.router_cpu + max(0.0, many.router_cpu - alone.router_cpu) * more, EXTRAPOLATED, text

    def _coming_and_going(self, routers: int) -> None:
        a_host = math.ceil(self.devices / self.total)
        drain = self.wish.drain
        self.add("drain", "a host is drained over", drain, "s", GIVEN, "--drain: drain.rate = devices of a host / that")
        self.add("drain_rate", "devices/s that are let go", a_host / drain, "/s", EXTRAPOLATED, "devices a host / that")
        text = "hosts x that, one after the other; starts and the balancer's notice come on top"
        self.add("rolling", "a rolling deploy of all hosts", self.total * drain, "s", EXTRAPOLATED, text)
        if rate := self.memory.setup_rate:
            text = f"devices a host / ((hosts - 1) x {rate:,.0f} set-ups/s of {self.memory.source})"
            lost = a_host / (max(1, self.total - 1) * rate)
            self.add(
                "host_back",
                "until the devices of a lost host are back, from their first attempt",
                lost,
                "s",
                EXTRAPOLATED,
                text,
            )
            text = f"devices / (hosts x {rate:,.0f} set-ups/s); their backoff comes on top"
            storm = self.devices / (self.total * rate)
            self.add("storm_back", "until all are back that were cut off at once", storm, "s", EXTRAPOLATED, text)
            self.add(
                "storm_rate",
                "set-ups/s of the farm meanwhile",
                self.total * rate,
                "/s",
                EXTRAPOLATED,
                "hosts x set-ups/s",
            )
        self._lost(routers)

    def _lost(self, routers: int) -> None:
        lease = RedisOptions().lease
        measured = [one for one in self.found.clusters if one.lost_seconds is not None]
        if not measured:
            text = "redis.lease, before which no other host takes it; not measured: add one of farm bench cluster"
            self.add("lost", "until a lost router is on another host, at least", lease, "s", ASSUMED, text)
            return
        most = max(measured, key=lambda one: (one.lost_devices, one.lost_seconds or 0.0))
        assert most.lost_seconds is not None
        name = "until 95 % of pushes to a lost host are accepted again"
        text = f"{most.source}, {most.lost_devices:,.0f} devices a router"
        self.add("lost", name, most.lost_seconds, "s", MEASURED, text)
        times = self.devices / routers / most.lost_devices
        seconds = lease + max(0.0, most.lost_seconds - lease) * max(1.0, times)
        text = (
            f"at most: redis.lease ({lease:g} s), and what is beyond it x {max(1.0, times):,.1f}, as more is announced"
        )
        self.add("lost_all", "the same with the devices of such a router", seconds, "s", EXTRAPOLATED, text)

    def _cells(self, routers: int, router_cores: float | None) -> int:
        """How many farms it should be."""
        workers = self.workers * self.total
        most_workers = LinkOptions().max_workers
        by = {f"workers: a router takes {most_workers:,} (link.max_workers)": math.ceil(workers / most_workers)}
        if router_cores is not None:
            needed = math.ceil(router_cores / self.headroom)
            by[f"pushes: {needed:,} routers, and a farm has {MAX_ROUTERS} at most"] = math.ceil(needed / MAX_ROUTERS)
        if (cores := self._link_cores()) is not None:
            share = cores[0] * workers / LINK_SHARE
            by[f"links: they take at most {LINK_SHARE:.0%} of a router's core"] = max(1, math.ceil(share))
        cells = max(by.values())
        text = "; ".join(f"{count} for {why}" for why, count in by.items())
        self.add("cells", "cells that this takes, at least", cells, "", EXTRAPOLATED, text)
        return cells

    def _cost(self, nodes: int, price: float | None) -> None:
        store = self.wish.store_price
        if store is None:
            return
        self.add("store_price", "dollars a month for a server of the store", store, "$", GIVEN, "--store-price")
        self.add("store_cost", "dollars a month for the store", store * nodes, "$", EXTRAPOLATED, "servers x price")
        if price is not None:
            cost = price * self.total + store * nodes
            self.add("cost_all", "dollars a month, hosts and store", cost, "$", EXTRAPOLATED, "the sum")
            text = "by devices wanted"
            self.add(
                "cost_all_a_million",
                "the same for a million devices",
                cost / self.devices * 1e6,
                "$",
                EXTRAPOLATED,
                text,
            )
