"""What is done to a farm over several hosts, to the network between them, and to the servers of its store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from support.cluster_hosts import FRONT, PEERS, STORE, Cluster, Host
from support.farm_fixture import until
from support.haproxy import HAProxy
from support.processes import stopped
from support.redis_servers import RedisServer

from torture import history
from torture.clients import Client
from torture.faults import WELL_S, Act, AnyFaults, Effect
from torture.upgrades import RELOADS, Code
from torture.world import World

LEASE_S: Final = 2.0
_ROUTER: Final = re.compile(r"farm: router (\d+)")
_SLOW_S: Final = (0.05, 0.3)
_QUICK_S: Final = 0.02
_LITTLE_MEMORY: Final = "1mb"
_PROMOTION_S: Final = 30.0


class ClusterFaults(AnyFaults):
    """All faults, by name, on one cluster."""

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        balancer: HAProxy,
        clients: Sequence[Client],
        code: Mapping[str, Code] | None = None,
    ) -> None:
        """code: of each host, if it changes."""
        link, wire = frozenset({history.LINK}), frozenset({history.LINK, history.WIRE})
        stands, store = link | {history.STOPPED}, link | {history.STORE}
        every: dict[str, tuple[Act, frozenset[str]]] = {
            "kill-host": (self._kill_host, link),
            "lose-host": (self._lose_host, wire),
            "drain-host": (self._drain_host, link),
            "reload-host": (self._reload_host, link),
            "other-release-host": (self._other_release, link),
            "kill-router": (lambda: self._kill("router"), link),
            "kill-worker": (lambda: self._kill("worker"), link),
            "kill-fork-server": (lambda: self._kill("fork server"), link),
            "stop-router": (lambda: self._stop("router"), stands),
            "stop-worker": (lambda: self._stop("worker"), stands),
            "stop-host": (self._stop_host, stands),
            "cut-store": (lambda: self._cut(STORE), stands | store),
            "cut-peers": (lambda: self._cut(PEERS), link),
            "cut-both": (lambda: self._cut(STORE, PEERS), stands | store),
            "cut-devices": (lambda: self._cut(FRONT), wire),
            "cut-everything": (lambda: self._cut(STORE, PEERS, FRONT), wire | stands | store),
            "cut-pair": (self._cut_pair, link),
            "kill-primary": (self._kill_primary, store),
            "restart-primary": (self._restart_primary, store),
            "stop-primary": (self._stop_primary, store | stands),
            "cut-primary": (self._cut_primary, store | stands),
            "kill-replica": (self._kill_replica, store),
            "slow-primary": (self._slow_primary, store),
            "full-primary": (self._full_primary, store),
            "resets": (lambda: self._order("reset"), frozenset()),
            "half-open": (lambda: self._order("abandon"), frozenset()),
            "slow-readers": (lambda: self._order("deafen"), frozenset()),
        }
        assert tuple(every) == NAMES
        super().__init__(world, clients, every)
        self._cluster = cluster
        self._balancer = balancer
        self._code = code or {}
        self.ended: set[str] = set()
        """Hosts that must not run now."""

    def well(self) -> bool:
        names = [host.name for host in self._cluster.hosts]
        return (
            all(host.healthy() for host in self._cluster.hosts)
            and self._balancer.up("devices") == self._balancer.up("app_servers") == names
        )

    # ------------------------------------------------------------------ hosts

    def _host(self) -> Host:
        return self._random.choice(self._cluster.hosts)

    def _long_or_short(self) -> float:
        """Seconds: within a lease, or beyond it."""
        return LEASE_S * self._random.choice((self._random.uniform(0.1, 0.6), self._random.uniform(1.5, 4)))

    async def _kill_host(self) -> Effect:
        """Its processes die at once; the kernel lives on and ends their connections."""
        host = self._host()
        lost = _routers(host)
        seconds = self._random.uniform(0, 2 * LEASE_S)
        await self._without(host, host.kill, seconds)
        return Effect(f"{host.name} for {seconds:.1f} s", frozenset({host.name}), lost)

    async def _lose_host(self) -> Effect:
        """It goes without a word, as with its power."""
        host = self._host()
        lost = _routers(host)
        seconds = LEASE_S * self._random.uniform(1.5, 4)

        def end() -> None:
            host.machine.silence()
            host.kill()

        await self._without(host, end, seconds, host.machine.mend)
        return Effect(f"{host.name} for {seconds:.1f} s", frozenset({host.name}), lost)

    async def _drain_host(self) -> Effect:
        host = self._host()
        await self._without(host, host.stop, self._random.uniform(0, LEASE_S))
        return Effect(host.name, frozenset({host.name}))

    async def _without(
        self, host: Host, end: Callable[[], None], seconds: float, mend: Callable[[], None] = lambda: None
    ) -> None:
        self.ended.add(host.name)
        try:
            await asyncio.to_thread(end)
            await asyncio.sleep(seconds)
            mend()
            await asyncio.to_thread(self._start, host)
        except AssertionError as error:
            self._world.odd("restart", f"{host.name}: {str(error).partition(chr(10))[0][:300]}")
        finally:
            self.ended.discard(host.name)

    def _start(self, host: Host) -> None:
        """Until it starts, as systemd does: it ends while Redis is away."""
        deadline = self._world.now() + WELL_S
        while True:
            try:
                return host.start()
            except AssertionError:
                host.kill()
                if self._world.now() > deadline or not list(host.events("farm.start_failed")):
                    raise

    async def _reload_host(self) -> Effect:
        host = self._host()
        before = len(list(host.events("reload.done")))
        os.kill(host.pid, signal.SIGHUP)
        try:
            await asyncio.to_thread(
                until, lambda: len(list(host.events("reload.done"))) > before, "the reload is done", WELL_S
            )
        except AssertionError as error:
            self._world.odd("reload", str(error))
        return Effect(host.name, frozenset({host.name}))

    async def _other_release(self) -> Effect:
        """A host gets other code than it has, whatever the others have."""
        host = self._host()
        done = await self._code[host.name].upgrade(
            self._random.random() < RELOADS,
            lambda: self._without(host, host.stop, 0),
            lambda text: self._world.odd("upgrade", f"{host.name}: {text}"),
        )
        return Effect(f"{host.name}: {done}", frozenset({host.name}))

    # ------------------------------------------------------------------ processes

    async def _pick(self, what: str) -> tuple[Host, int, str]:
        """One of these processes, on some host, as soon as there is one."""
        deadline = self._world.now() + WELL_S
        while self._world.now() < deadline:
            found = [
                (host, pid, title)
                for host in self._cluster.hosts
                for pid, title in sorted(host.processes().items())
                if f"farm: {what}" in title
            ]
            if found:
                return self._random.choice(found)
            await asyncio.sleep(0.1)
        raise AssertionError(f"there has been no {what} for {WELL_S:g} s")

    def _effect(self, host: Host, title: str, detail: str = "") -> Effect:
        router = _ROUTER.search(title)
        hosts = frozenset({host.name}) if "worker" in title else frozenset()
        return Effect(f"{host.name} {title} {detail}", hosts, frozenset({int(router[1])}) if router else frozenset())

    async def _kill(self, what: str) -> Effect:
        host, pid, title = await self._pick(what)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.3)  # health does not know it yet
        return self._effect(host, title)

    async def _stop(self, what: str) -> Effect:
        host, pid, title = await self._pick(what)
        seconds = self._long_or_short()
        with contextlib.suppress(ProcessLookupError), stopped(pid):
            await asyncio.sleep(seconds)
        await asyncio.sleep(0.2)
        return self._effect(host, title, f"for {seconds:.1f} s")

    async def _stop_host(self) -> Effect:
        """All of its processes stand still, and go on."""
        host, seconds = self._host(), self._long_or_short()
        lost = _routers(host)
        with contextlib.ExitStack() as standing:
            for pid in host.processes():
                with contextlib.suppress(ProcessLookupError):
                    standing.enter_context(stopped(pid))
            await asyncio.sleep(seconds)
        await asyncio.sleep(0.2)
        return Effect(f"{host.name} for {seconds:.1f} s", frozenset({host.name}), lost)

    # ------------------------------------------------------------------ network

    async def _cut(self, *cables: str) -> Effect:
        """A host has lost these cables for a while."""
        host, seconds = self._host(), self._long_or_short()
        how = self._random.choice((host.machine.cut, host.machine.silence))
        lost = _routers(host)
        how(*cables)
        try:
            await asyncio.sleep(seconds)
        finally:
            host.machine.mend(*cables)
        # A host that only lost Redis keeps its devices: the routers of others serve them.
        hosts = frozenset() if cables == (STORE,) else frozenset({host.name})
        return Effect(f"{host.name} for {seconds:.1f} s by {how.__name__}", hosts, lost)

    async def _cut_pair(self) -> Effect:
        """Two hosts do not reach each other, and both reach the third."""
        one, other = self._random.sample(self._cluster.hosts, 2)
        seconds = self._long_or_short()
        one.machine.deafen(other.machine, PEERS)
        try:
            await asyncio.sleep(seconds)
        finally:
            one.machine.hear(other.machine, PEERS)
        return Effect(f"{one.name} and {other.name} for {seconds:.1f} s", frozenset({one.name, other.name}))

    # ------------------------------------------------------------------ store

    async def _kill_primary(self) -> str:
        sentinels = self._cluster.sentinels
        before = await asyncio.to_thread(sentinels.fail_over)
        await asyncio.sleep(self._random.uniform(0, LEASE_S))
        await asyncio.to_thread(sentinels.bring_back, before)
        return ""

    async def _restart_primary(self) -> str:
        """It comes back before a Sentinel finds that it is down."""
        await asyncio.to_thread((await self._primary()).restart)
        return ""

    async def _stop_primary(self) -> str:
        """It stands still, perhaps for so long that its replica is promoted, and goes on as if it were the primary."""
        server, seconds = await self._primary(), self._long_or_short()
        with stopped(server.pid):
            await asyncio.sleep(seconds)
        return f"for {seconds:.1f} s, {await self._one_primary(server)}"

    async def _cut_primary(self) -> str:
        """Nobody reaches it, until its replica has been promoted."""
        server = await self._primary()
        assert server.machine is not None
        server.machine.silence()
        try:
            await asyncio.to_thread(self._cluster.sentinels.wait_promoted, server)
            await asyncio.sleep(self._random.uniform(0, LEASE_S))
        finally:
            server.machine.mend()
        return await self._one_primary(server)

    async def _kill_replica(self) -> str:
        server = await asyncio.to_thread(lambda: self._cluster.sentinels.replica)
        seconds = self._long_or_short()
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._cluster.sentinels.bring_back, server)
        return f"for {seconds:.1f} s"

    async def _slow_primary(self) -> str:
        """It answers, but hardly."""
        server, seconds = await self._primary(), self._long_or_short()
        until = self._world.now() + seconds
        while self._world.now() < until:
            with stopped(server.pid):
                await asyncio.sleep(self._random.uniform(*_SLOW_S))
            await asyncio.sleep(_QUICK_S)
        return f"for {seconds:.1f} s, {await self._one_primary(server)}"

    async def _full_primary(self) -> str:
        """It has no memory for anything new."""
        server, seconds = await self._primary(), self._random.uniform(0.5, 3)
        await asyncio.to_thread(server.config, "maxmemory", _LITTLE_MEMORY)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(server.config, "maxmemory", "0")
        return f"for {seconds:.1f} s"

    async def _primary(self) -> RedisServer:
        return await asyncio.to_thread(lambda: self._cluster.sentinels.primary)

    async def _one_primary(self, before: RedisServer) -> str:
        """Whether another one is the primary now; this one then follows it. Sentinels would see to it, but later."""
        await asyncio.sleep(1.0)  # a promotion that has begun
        primary = await self._primary()
        if primary is before:
            return "still the primary"
        await asyncio.to_thread(self._cluster.sentinels.wait_promoted, before)
        await asyncio.to_thread(self._cluster.sentinels.follow, before)
        return "replaced"


def _routers(host: Host) -> frozenset[int]:
    """Those that run there."""
    found = map(_ROUTER.search, host.processes().values())
    return frozenset(int(one[1]) for one in found if one)


NAMES: Final = (
    "kill-host",
    "lose-host",
    "drain-host",
    "reload-host",
    "other-release-host",
    "kill-router",
    "kill-worker",
    "kill-fork-server",
    "stop-router",
    "stop-worker",
    "stop-host",
    "cut-store",
    "cut-peers",
    "cut-both",
    "cut-devices",
    "cut-everything",
    "cut-pair",
    "kill-primary",
    "restart-primary",
    "stop-primary",
    "cut-primary",
    "kill-replica",
    "slow-primary",
    "full-primary",
    "resets",
    "half-open",
    "slow-readers",
)
