"""What is done to a farm under test: each fault lasts until the farm is well again, and goes into the history."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from support.eio import FailingDisk
from support.farm_fixture import Farm
from support.processes import stopped
from support.redis_servers import PRODUCTS, RedisServer

from torture.clients import Client
from torture.history import CLOCK, LINK, STOPPED, STORE, Fault
from torture.upgrades import RELOADS, Code
from torture.world import World

LEASE_S: Final = 1.5
WELL_S: Final = 60.0
"""A farm that is not well again by then is a violation of its own."""
_DISK: Final = "64m"
_MAX_CLOCK_S: Final = 2 * 3600
_CLONE_NEWNS: Final = 0x00020000


class Machine:
    """What the farm stands on: a small disk that can be filled and can fail, and a clock of its own. What this machine
    does not allow is left out, and said in `missing`."""

    def __init__(self, folder: Path, store: str) -> None:
        """store: a kind of store, or a product that is the server of one."""
        self.missing: dict[str, str] = {}
        self.server: RedisServer | None = None
        self.code: Code | None = None  # if it changes
        if store in PRODUCTS:
            (folder / "server").mkdir()
            self.server = RedisServer(store, folder / "server")
        else:
            self.missing |= dict.fromkeys(("kill-store", "stop-store"), f"--store {store} is no server")
        self.data_parent = folder / "disk"
        self.data_parent.mkdir()
        self.environment: dict[str, str] = {}
        self.disk: FailingDisk | None = None
        self._mounted = False
        self._clock = folder / "clock"
        preload = []
        if why := self._mount():
            self.missing["full-disk"] = why
        if store != "sqlite":
            self.missing |= dict.fromkeys(("full-disk", "eio"), f"--store {store} is not on the disk of the farm")
        try:
            self.disk = FailingDisk(folder, self.data_parent)
        except RuntimeError as error:
            self.missing["eio"] = str(error)
        else:
            self.environment |= self.disk.environment
            preload.append(self.disk.environment["LD_PRELOAD"])
        library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
        if library is None:
            self.missing["clock"] = "no libfaketime; as root: apt-get install --no-install-recommends libfaketime"
        else:
            self.set_clock(0)
            preload.append(str(library))
            self.environment |= {
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1",
                "NO_FAKE_STAT": "1",
            }
        if preload:
            self.environment["LD_PRELOAD"] = " ".join(preload)

    def _mount(self) -> str:
        """A file system of our own, in a mount namespace of our own. Returns: why there is none."""
        if os.geteuid():
            return "only root may mount a small disk"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS):
            return f"no mount namespace: {os.strerror(ctypes.get_errno())}"
        for command in (
            ["mount", "--make-rprivate", "/"],
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=700", "tmpfs", str(self.data_parent)],
        ):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                return done.stderr.strip() or "mount failed"
        self._mounted = True
        return ""

    def fill(self) -> None:
        """No room is left on the disk."""
        with (self.data_parent / "filler").open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(b"x" * 65_536)
        with (self.data_parent / "filler2").open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(b"x" * 512)

    def clear(self) -> None:
        """There is room again."""
        for name in ("filler", "filler2"):
            (self.data_parent / name).unlink(missing_ok=True)

    def set_clock(self, seconds: int) -> None:
        """The farm's clock is so far ahead of the machine's."""
        new = self._clock.with_name("clock.new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._clock)

    def close(self) -> None:
        """Take the disk and the server away."""
        if self.server is not None:
            self.server.stop(signal.SIGKILL)
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.data_parent)], check=False)
        shutil.rmtree(self.data_parent, ignore_errors=True)


@dataclass(frozen=True)
class Effect:
    """What a fault has come to."""

    detail: str = ""
    hosts: frozenset[str] = frozenset()
    routers: frozenset[int] = frozenset()


Act = Callable[[], Awaitable[str | Effect]]


class AnyFaults:
    """Faults by name, and what they touch."""

    def __init__(
        self, world: World, clients: Sequence[Client], every: Mapping[str, tuple[Act, frozenset[str]]]
    ) -> None:
        self._world = world
        self._clients = clients
        self._random = world.random("faults")
        self._all = every
        self.done: dict[str, int] = {}

    def well(self) -> bool:
        """Whether nothing is wrong any more."""
        raise NotImplementedError

    async def run(self, name: str) -> None:
        """Do it, and wait until all is well again."""
        act, touches = self._all[name]
        begin = self._world.now()
        found = await act()
        effect = found if isinstance(found, Effect) else Effect(found)
        await self.wait_well()
        self.done[name] = self.done.get(name, 0) + 1
        self._world.history.faults.append(
            Fault(name, begin, self._world.now(), touches, effect.detail, effect.hosts, effect.routers)
        )

    async def wait_well(self) -> None:
        """Until nothing is wrong any more."""
        deadline = self._world.now() + WELL_S
        while not await asyncio.to_thread(self._is_well):
            if self._world.now() > deadline:
                self._world.odd("not well again", f"the farm is not healthy {WELL_S:g} s after a fault")
                return
            await asyncio.sleep(0.1)

    def _is_well(self) -> bool:
        try:
            return self.well()
        except OSError:
            return False

    # ------------------------------------------------------------------ clients

    async def _order(self, what: str) -> str:
        online = [client for client in self._clients if client.online]
        chosen = self._random.sample(online, len(online) // 3)
        for client in chosen:
            client.order(what)
        return f"{len(chosen)} clients"


class Faults(AnyFaults):
    """All faults of a farm on one host."""

    def __init__(
        self, world: World, farm: Farm, machine: Machine, clients: Sequence[Client], routers: Sequence[int]
    ) -> None:
        """routers: the numbers of them that the farm may have."""
        self._farm = farm
        self._machine = machine
        self._routers = routers
        self.expected_to_run = True
        """The farm must not end now."""
        every = frozenset({LINK})
        all_of_them: dict[str, tuple[Act, frozenset[str]]] = {
            "kill-worker": (lambda: self._kill("worker"), every),
            "kill-router": (lambda: self._kill("router"), every),
            "kill-fork-server": (lambda: self._kill("fork server"), every),
            "kill-everything": (self._kill_everything, every),
            "stop-worker": (lambda: self._stop("worker"), every | {STOPPED}),
            "stop-router": (lambda: self._stop("router"), every | {STOPPED}),
            "stop-fork-server": (lambda: self._stop("fork server"), every | {STOPPED}),
            "reload": (self._reload, every),
            "other-release": (self._other_release, every),
            "drain": (self._drain, every),
            "other-routers": (self._other_routers, every),
            "full-disk": (self._full_disk, frozenset({STORE})),
            "eio": (self._eio, frozenset({STORE})),
            "kill-store": (self._kill_store, frozenset({STORE})),
            "stop-store": (self._stop_store, frozenset({STORE})),
            "clock": (self._step_the_clock, frozenset({CLOCK})),
            "resets": (lambda: self._order("reset"), frozenset()),
            "half-open": (lambda: self._order("abandon"), frozenset()),
            "slow-readers": (lambda: self._order("deafen"), frozenset()),
        }
        assert tuple(all_of_them) == NAMES
        super().__init__(world, clients, all_of_them)

    def well(self) -> bool:
        return self._farm.healthy()

    # ------------------------------------------------------------------ processes

    async def _pick(self, what: str) -> tuple[int, str] | None:
        """One of these processes, as soon as there is one: it may just be replaced."""
        deadline = self._world.now() + WELL_S
        while self._world.now() < deadline:
            found = [(pid, title) for pid, title in self._farm.processes().items() if f"farm: {what}" in title]
            if found:
                return self._random.choice(sorted(found))
            await asyncio.sleep(0.1)
        self._world.odd("nothing to harm", f"there has been no {what} for {WELL_S:g} s")
        return None

    async def _kill(self, what: str) -> str:
        found = await self._pick(what)
        if found is None:
            return f"there is no {what}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGKILL)
        await asyncio.sleep(0.3)  # health does not know it yet
        return f"{found[1]} {found[0]}"

    async def _stop(self, what: str) -> str:
        found = await self._pick(what)
        if found is None:
            return f"there is no {what}"
        seconds = LEASE_S * self._random.choice((self._random.uniform(0.1, 0.7), self._random.uniform(1.2, 3)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.kill(found[0], signal.SIGCONT)
        await asyncio.sleep(0.2)
        return f"{found[1]} {found[0]} for {seconds:.1f} s"

    async def _kill_store(self) -> str:
        """The server dies, and comes back after a while."""
        server = self._machine.server
        assert server is not None
        seconds = self._random.uniform(0, LEASE_S)
        server.stop(signal.SIGKILL)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)
        return f"for {seconds:.1f} s"

    async def _stop_store(self) -> str:
        """The server stands still for a while."""
        server = self._machine.server
        assert server is not None
        seconds = self._random.uniform(0.1, 2 * LEASE_S)
        with stopped(server.pid):
            await asyncio.sleep(seconds)
        return f"for {seconds:.1f} s"

    async def _kill_everything(self) -> str:
        await self._restart(self._farm.kill)
        return ""

    async def _drain(self) -> str:
        await self._restart(self._farm.stop)
        return ""

    async def _other_routers(self) -> str:
        """The farm is started with another number of routers, perhaps after a start that is killed while it copies."""
        before = self._farm.settings.get("router.routers", 1)
        wanted = self._random.choice([number for number in self._routers if number != before])

        def end() -> None:
            self._farm.stop()
            self._farm.settings["router.routers"] = wanted
            if interrupted:
                self._farm.launch()
                time.sleep(interrupted)
                self._farm.kill()

        interrupted = self._random.choice((0, self._random.uniform(0.2, 1.5)))
        await self._restart(end)
        return f"{wanted} instead of {before}" + (f", killed after {interrupted:.1f} s" if interrupted else "")

    async def _restart(self, end: Callable[[], None]) -> None:
        self.expected_to_run = False
        try:
            await asyncio.to_thread(end)
            await asyncio.sleep(self._random.uniform(0, 1))
            await asyncio.to_thread(self._farm.start)
        except AssertionError as error:
            self._world.odd("restart", str(error).partition("\n")[0][:300])
            raise
        finally:
            self.expected_to_run = True

    async def _reload(self) -> str:
        os.kill(self._farm.pid, signal.SIGHUP)
        deadline = self._world.now() + WELL_S
        await asyncio.sleep(0.5)
        while self._world.now() < deadline:
            try:
                if not (await asyncio.to_thread(self._farm.status))["reloading"]:
                    return ""
            except (OSError, AssertionError, ValueError):
                return "the farm has gone"
            await asyncio.sleep(0.1)
        self._world.odd("reload", f"still reloading after {WELL_S:g} s")
        return "not done"

    async def _other_release(self) -> str:
        assert self._machine.code is not None
        by_reload, odd = self._random.random() < RELOADS, partial(self._world.odd, "upgrade")
        return await self._machine.code.upgrade(by_reload, lambda: self._restart(self._farm.stop), odd)

    # ------------------------------------------------------------------ machine

    async def _full_disk(self) -> str:
        await asyncio.to_thread(self._machine.fill)
        try:
            await asyncio.sleep(self._random.uniform(0.5, 3))
        finally:
            self._machine.clear()
        return await self._store_well()

    async def _eio(self) -> str:
        assert self._machine.disk is not None
        calls = self._random.choice(((), ("sync",), ("write",), ("read", "write", "sync", "truncate")))
        self._machine.disk.fail(*calls)
        try:
            await asyncio.sleep(self._random.uniform(0.5, 3))
        finally:
            self._machine.disk.heal()
        return f"{' '.join(calls) or 'all writing'}; {await self._store_well()}"

    async def _store_well(self) -> str:
        begin = self._world.now()
        while self._world.now() < begin + WELL_S:
            with contextlib.suppress(OSError, AssertionError, ValueError):
                if all(row.get("store_ok") for row in (await asyncio.to_thread(self._farm.status))["routers"]):
                    return f"well after {self._world.now() - begin:.1f} s"
            await asyncio.sleep(0.1)
        self._world.odd("not well again", f"the store cannot write {WELL_S:g} s after the disk was mended")
        return "not well"

    async def _step_the_clock(self) -> str:
        step = int(self._random.choice((-1, 1)) * self._random.choice((2, 30, 600, 3700)))
        offset = int(self._world.clock_offset) + step
        if abs(offset) > _MAX_CLOCK_S:
            offset = 0
        self._world.clock_offset = offset
        self._machine.set_clock(offset)
        await asyncio.sleep(1.2)  # how long the old one may be remembered
        return f"to {offset:+d} s"


NAMES: Final = (
    "kill-worker",
    "kill-router",
    "kill-fork-server",
    "kill-everything",
    "stop-worker",
    "stop-router",
    "stop-fork-server",
    "reload",
    "other-release",
    "drain",
    "other-routers",
    "full-disk",
    "eio",
    "kill-store",
    "stop-store",
    "clock",
    "resets",
    "half-open",
    "slow-readers",
)
