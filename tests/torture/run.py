"""`make torture`: a farm, its clients, senders and faults for a time; then all clients reconnect and all is checked."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from support.dialects import known, names
from support.farm_fixture import Farm
from support.redis_servers import PRODUCTS
from support.releases import of_commit

from torture.checker import Rule, Violation, check
from torture.clients import APP_ID, APP_KEY, APP_SECRET, Client, SimplePushDevice, Subscriber, WebPushDevice
from torture.faults import LEASE_S, NAMES, AnyFaults, Faults, Machine
from torture.followers import (
    ADMIN_KEY,
    Gopush2Follower,
    Gopush2Sender,
    PushStreamFollower,
    PushStreamSender,
    with_one_position,
)
from torture.history import (
    DIALECTS,
    GOPUSH2,
    LINK,
    PUSHER,
    PUSHSTREAM,
    SIMPLEPUSH,
    STOPPED,
    STORE,
    WEBPUSH,
    Fault,
    Occupancy,
    Settled,
)
from torture.report import Log, chosen_first, explain, rest, table
from torture.senders import PusherSender, Sender, SimplePushSender, WebhookSite, WebPushSender, users
from torture.upgrades import NO_OLDER, Code, older_option
from torture.wire import Http
from torture.world import World

CHANNELS: Final = (
    "private-0",
    "private-1",
    "private-2",
    "cache-0",
    "private-cache-1",
    "presence-0",
    "presence-1",
    "presence-cache-2",
)
SETTINGS: Final = {
    "store.sweep_interval": 1,
    "endpoint.delivery_timeout": 0.5,
    "link.lease": LEASE_S,
    "link.heartbeat": 0.2,
    "farm.restart_max": 0.3,
    "drain.seconds": 1,
    "worker.close_timeout": 1,
    "worker.write_timeout": 5,
    "worker.keepalive": 10,
    "simplepush.min_ping_interval": 0,
    "pusher.timestamp_window": 100_000,
    "pusher.cache_ttl": 100_000,
    "pusher.webhook_hold": 0.5,
    "webpush.timeout_uaid": 0,
    "simplepush.timeout_uaid": 0,
    "store.log_limit": 100_000,
    "store.log_bytes": 33_554_432,
    "gopush2.auth": False,
    "gopush2.admin_key": ADMIN_KEY,
    "pushstream.admin_key": ADMIN_KEY,
    "gopush2.message_expire": 1_000_000,
    "gopush2.channel_expire": 1_000_000,
    "gopush2.max_stored_message": 100_000,
    "pushstream.message_ttl": 1_000_000,
}
"""The clock is stepped by less than what expires."""
FOLLOWED_CHANNELS: Final = 16
"""An even number, so that each key is sent to by one of two senders; enough that some always belong together."""
_REPORT_S: Final = 10.0
_STILL_S: Final = 2.0
_SETTLE_S: Final = 60.0
_PRESENCE_S: Final = 20.0
_SHOWN: Final = 20
_LOOK_S: Final = 0.05
_STARVED_S: Final = 0.5


class Run:
    """One run: what all farms have in common."""

    faults: AnyFaults
    log: Log
    rules: tuple[Rule, ...] = ()
    """What must hold besides."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.world = World(options.seed)
        self.missing: dict[str, str] = {}
        """Faults that cannot be made here, and why."""
        self.site = WebhookSite(self.world)
        self.folder = folder
        self.clients: list[Client] = []
        self.senders: list[Sender] = []
        self.starved = 0.0
        """Seconds in which the machine gave us no CPU."""

    # ------------------------------------------------------------------ what a kind of farm adds

    async def start(self) -> None:
        """Start the farm, and set the world's ports, `log` and `faults`. The site of webhooks is there."""
        raise NotImplementedError

    async def watch(self) -> None:
        """Every tenth of a second: what must not be."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End the farm in the usual way. Raises: AssertionError."""
        raise NotImplementedError

    # ------------------------------------------------------------------ the run

    async def go(self) -> list[Violation]:
        """Everything. Returns: what was wrong."""
        await self.site.open()
        await self.start()
        self.populate()
        tasks = [asyncio.create_task(client.live()) for client in self.clients]
        tasks += [asyncio.create_task(sender.run()) for sender in self.senders]
        tasks += [asyncio.create_task(act()) for act in (self._watch, self._report, self._starved, self.log.run)]
        try:
            await self._torture()
            self._say("faults are over; everybody comes back")
            await self._finale()
        finally:
            self.world.closing = True
            self.world.bury(everything=True)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self.stop()
            except AssertionError as error:
                self.world.odd("stop", str(error)[:300])
            await self.site.close()
        self.log.read()
        for error in ended:
            if isinstance(error, Exception):
                self.world.odd("client error", repr(error))
        return check(self.world.history, self.rules)

    def settings(self) -> dict[str, Any]:
        """Of every farm, but for its store."""
        hook = {"url": f"http://{self.site.host}:{self.site.port}/", "events": ["channel_occupied", "channel_vacated"]}
        app = {"id": APP_ID, "name": "torture", "key": APP_KEY, "secret": APP_SECRET, "webhooks": [hook]}
        apps = self.folder / "apps.json"
        apps.write_text(json.dumps({"applications": [app]}))
        spoken = {f"dialects.{name}": True for name in self.options.dialects}
        return known(SETTINGS | {"pusher.apps": apps, "router.routers": self.options.routers[0]}) | spoken

    def populate(self) -> None:
        """Make the clients and the senders."""
        options, world = self.options, self.world
        each, rate = max(3, options.devices // len(options.dialects)), options.rate / len(options.dialects)
        if SIMPLEPUSH in options.dialects:
            simple = [SimplePushDevice(world, f"sp{n}") for n in range(each)]
            self.clients += simple
            self.senders += [
                SimplePushSender(world, f"sp-sender{n}", rate / 4, simple[n::4] or simple) for n in range(4)
            ]
        if WEBPUSH in options.dialects:
            from support.webpush_vapid import Sender as VapidKey  # which goes with the dialect

            key = VapidKey()
            web = [WebPushDevice(world, f"wp{n}", key.public) for n in range(each)]
            self.clients += web
            self.senders += [WebPushSender(world, f"wp-sender{n}", rate / 4, web[n::4] or web, key) for n in range(4)]
        if PUSHER in options.dialects:
            chance = world.random("subscriptions")
            self.clients += [Subscriber(world, f"u{n}", chance.sample(CHANNELS, 3)) for n in range(each)]
            self.senders += [PusherSender(world, f"p-sender{n}", rate / 4, CHANNELS[n::4]) for n in range(4)]
        names = [f"c{n}" for n in range(FOLLOWED_CHANNELS)]
        if GOPUSH2 in options.dialects:
            keys = [f"key-{name}" for name in names]
            followers = [Gopush2Follower(world, f"g{n}", keys[n % len(keys)]) for n in range(each)]
            self.clients += followers
            self.senders += [Gopush2Sender(world, f"g-sender{n}", rate / 2, followers[n::2]) for n in range(2)]
        if PUSHSTREAM in options.dialects:
            chance = world.random("followed")
            together = [group for group in with_one_position(names, options.routers) if len(group) > 1]
            follows = [chance.sample(chance.choice(together), 2) for _ in range(each)]
            self.clients += [PushStreamFollower(world, f"s{n}", channels) for n, channels in enumerate(follows)]
            self.senders += [PushStreamSender(world, f"s-sender{n}", rate / 2, names[n::2]) for n in range(2)]

    # ------------------------------------------------------------------ faults

    async def _torture(self) -> None:
        chance = self.world.random("schedule")
        wanted = [name for name in self.options.faults if name not in self.missing]
        for name in self.options.faults:
            if name in self.missing:
                self._say(f"without {name}: {self.missing[name]}")
        await asyncio.sleep(1.0)  # devices register
        queue: list[str] = []
        rounds = self.options.rounds

        def go_on() -> bool:
            if rounds is None:
                return self.world.now() < self.options.seconds
            return bool(queue) or rounds > 0

        while wanted and go_on():
            if not queue:  # each once, in an order of its own every time
                queue = chance.sample(wanted, len(wanted))
                rounds = None if rounds is None else rounds - 1
            now = [queue.pop()]
            if queue and chance.random() < self.options.pairs and not {now[0], queue[-1]} & _ALONE:
                now.append(queue.pop())
            async with asyncio.TaskGroup() as group:
                for number, name in enumerate(now):
                    group.create_task(self._fault(name, number * chance.uniform(0, 1)))
            await asyncio.sleep(chance.uniform(*self.options.pause))
        if rounds is None:
            await asyncio.sleep(max(0.0, self.options.seconds - self.world.now()))

    async def _fault(self, name: str, wait: float) -> None:
        await asyncio.sleep(wait)
        begin = self.world.now()
        await self.faults.run(name)
        if self.options.verbose:
            last = self.world.history.faults[-1]
            self._say(f"{name} {last.detail} ({begin:.1f} to {self.world.now():.1f})")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.world.bury()
            await self.watch()

    async def _starved(self) -> None:
        """The machine gives us no CPU for a while, and perhaps none to the farm: leases end, faults take longer. That
        is a standstill of everything, seen by the one thing that must not depend on the farm: our own clock."""
        last = self.world.now()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = self.world.now()
            if now - last - _LOOK_S > _STARVED_S:
                self.starved += now - last
                touches = frozenset({LINK, STORE, STOPPED})
                self.world.history.faults.append(Fault("starved", last, now, touches, "by the machine"))
            last = now

    # ------------------------------------------------------------------ the end

    async def _finale(self) -> None:
        self.world.quiet = True
        await self.faults.wait_well()
        await asyncio.sleep(0.5)
        self.world.bury(everything=True)
        for _ in range(2):  # what waits comes the first time, and nothing the second time
            for client in self.clients:
                client.order("close")
            await asyncio.sleep(0.5)
            self.world.history.complete = await self._all_there() and self.world.history.complete
        if not self.world.history.complete:
            offline = [client.name for client in self.clients if not client.online]
            self.world.odd("not well again", f"not everybody could come back and settle: {offline[:20]}")
        if PUSHER in self.options.dialects:
            await self._presence()

    async def _all_there(self) -> bool:
        """Whether every client is connected, nothing comes any more, and all that was sent has been handled."""
        deadline = self.world.now() + _SETTLE_S
        while self.world.now() < deadline:
            if all(client.online for client in self.clients) and self.world.now() - self.world.last_arrival > _STILL_S:
                settled = await asyncio.gather(*(client.settle() for client in self.clients))
                if all(settled):  # else a client was still about to change its connection
                    return True
            await asyncio.sleep(0.1)
        return False

    async def _presence(self) -> None:
        subscribers = [client for client in self.clients if isinstance(client, Subscriber)]
        http = Http(self.world.router_port)
        history = self.world.history

        async def look() -> list[Settled]:
            found = []
            for channel in sorted({name for one in subscribers for name in one.channels}):
                if not channel.startswith("presence-"):
                    continue
                there = [one for one in subscribers if channel in one.channels]
                truth = frozenset(one.name for one in there)
                found += [Settled(channel, o.name, truth, frozenset(o.members.get(channel, ()))) for o in there]
                listed = await users(self.world, http, channel) or frozenset()
                found.append(Settled(channel, "the HTTP API", truth, listed))
            return found

        def wrong(one: Settled) -> bool:
            return one.seen != one.truth

        deadline = self.world.now() + _PRESENCE_S
        history.settled = await look()
        while any(map(wrong, history.settled)) and self.world.now() < deadline:
            await asyncio.sleep(0.3)
            history.settled = await look()
        used = {channel for one in subscribers for channel in one.channels}
        await self._webhooks(dict.fromkeys(used, True))
        self.world.closing = True
        for one in subscribers:
            one.order("close")
        await self._webhooks(dict.fromkeys(used, False))
        http.close()

    async def _webhooks(self, truth: dict[str, bool]) -> None:
        history, names = self.world.history, {True: "channel_occupied", False: "channel_vacated"}

        def agrees(channel: str) -> bool:
            told = [one.name for one in history.webhooks if one.channel == channel]
            return bool(told) and told[-1] == names[truth[channel]]

        deadline = self.world.now() + _PRESENCE_S
        while not all(map(agrees, truth)) and self.world.now() < deadline:
            await asyncio.sleep(0.1)
        history.occupancy += [Occupancy(channel, state, self.world.now()) for channel, state in truth.items()]

    # ------------------------------------------------------------------ what is shown

    def _say(self, text: str) -> None:
        print(f"{self.world.now():7.1f} s  {text}", flush=True)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            history = self.world.history
            accepted = sum(push.accepted for push in history.pushes)
            online = sum(client.online for client in self.clients)
            self._say(
                f"{online}/{len(self.clients)} online, {len(history.pushes)} pushes, {accepted} accepted, "
                f"{len(history.arrivals)} arrivals, {sum(self.faults.done.values())} faults, "
                f"{len(history.oddities)} oddities"
            )


class FarmRun(Run):
    """A farm on one host."""

    faults: Faults

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        super().__init__(options, folder)
        self.machine = Machine(folder, options.store)
        self.missing = self.machine.missing
        if not options.older:
            self.missing["other-release"] = NO_OLDER
        if len(set(options.routers)) == 1:
            self.missing["other-routers"] = "--routers names one number"

    async def start(self) -> None:
        data, environment = self.machine.data_parent / "data", self.machine.environment
        store: dict[str, Any] = {"store.kind": self.options.store}
        if (server := self.machine.server) is not None:
            store = {"store.kind": "redis", "redis.url": server.url, "redis.timeout": 2}
        self.farm = Farm(data, self.settings() | store, self.options.workers, environment)
        self.farm.log_file = self.folder / "farm.log"  # a full disk must not hide what the farm logs
        self.log = Log(self.world, {"": self.farm})
        if self.options.older:
            older = of_commit(self.options.older, self.folder / "older")
            self.machine.code = Code(self.farm, self.folder / "code", older)
        self.faults = Faults(self.world, self.farm, self.machine, self.clients, self.options.routers)
        await asyncio.to_thread(self.farm.start)
        self.world.device_port, self.world.router_port = self.farm.device_port, self.farm.router_port

    async def watch(self) -> None:
        """A farm that has ended by itself is a violation; it is started again."""
        if self.faults.expected_to_run and (code := self.farm.exit_code()) is not None:
            self.faults.expected_to_run = False
            self.world.odd("farm ended", f"exit code {code} after {self.log.around(self.world.now())[-8:]}")
            await asyncio.to_thread(self.farm.kill)
            await asyncio.to_thread(self.farm.start)
            self.faults.expected_to_run = True

    async def stop(self) -> None:
        self.faults.expected_to_run = False
        await asyncio.to_thread(self.farm.stop)


_ALONE: Final = frozenset({"kill-everything", "drain", "other-routers", "other-release-host"})


def _there() -> list[str]:
    return [dialect for dialect in DIALECTS if dialect in names()]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[int]:
    return [int(name) for name in _names(text)]


def common_options(parser: argparse.ArgumentParser, names: Sequence[str], dialects: Sequence[str]) -> None:
    """Those of every run. names: of faults."""
    parser.add_argument("--seconds", type=float, default=120, help="how long faults are made (s)")
    parser.add_argument("--rounds", type=int, help="instead: how often each fault is made")
    parser.add_argument("--seed", type=int, help="of the schedule; given, the same faults come in the same order")
    parser.add_argument("--dialects", type=_names, default=dialects, help="comma separated")
    parser.add_argument("--faults", type=_names, default=list(names), help=f"comma separated, of {', '.join(names)}")
    parser.add_argument("--except", type=_names, default=[], dest="left_out", help="faults to leave out")
    parser.add_argument("--devices", type=int, default=150, help="clients of all dialects together")
    parser.add_argument("--rate", type=float, default=120, help="pushes of all dialects together (1/s)")
    parser.add_argument("--pairs", type=float, default=0.3, help="how often two faults come at once (0 to 1)")
    parser.add_argument("--pause", type=float, nargs=2, default=(0.5, 3.0), help="between faults (s)")
    older_option(parser)
    parser.add_argument("--keep", type=Path, help="a folder for the farm's log")
    parser.add_argument("--verbose", action="store_true", help="say every fault")


def checked(parser: argparse.ArgumentParser, found: argparse.Namespace, names: Sequence[str]) -> argparse.Namespace:
    """The options, if they are good."""
    for what, given, good in (("fault", found.faults + found.left_out, names), ("dialect", found.dialects, _there())):
        for name in given:
            if name not in good:
                parser.error(f"no such {what}: {name}; there are {', '.join(good)}")
    found.faults = [name for name in found.faults if name not in found.left_out]
    if found.seed is None:
        found.seed = random.SystemRandom().randrange(1_000_000)
    return found


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    common_options(parser, NAMES, _there())
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument(
        "--routers", type=_numbers, default=[1], help="router processes; a comma separated list: one after the other"
    )
    parser.add_argument("--store", choices=("sqlite", *PRODUCTS), default="sqlite", help="a server of it is started")
    return checked(parser, parser.parse_args(arguments), NAMES)


def told(run: Run, violations: Sequence[Violation]) -> int:
    """Print what was found. Returns: exit code."""
    first, others = chosen_first(violations, _SHOWN)
    for violation in first:
        print(explain(violation, run.world.history, run.log), flush=True)
    if others:
        print(rest(others))
    print(table(run.world.history, run.options.dialects, run.faults.done))
    ends = ", ".join(f"{why} ({count})" for why, count in run.world.counts.most_common(12))
    if run.starved:
        print(f"the machine gave no CPU for {run.starved:.1f} s in all, which counts as a standstill")
    print(f"connections ended: {ends or 'as their clients wished'}")
    print(f"violations: {len(violations)}, seed {run.options.seed}")
    return 1 if violations else 0


def main(arguments: list[str]) -> int:
    """Run. Returns: exit code."""
    chosen = options(arguments)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        run = FarmRun(chosen, Path(name))
        print(f"seed {chosen.seed}, {chosen.seconds:g} s, {', '.join(chosen.dialects)}", flush=True)
        try:
            return told(run, asyncio.run(run.go()))
        finally:
            if chosen.keep is not None:
                chosen.keep.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):
                    (chosen.keep / f"farm-{int(time.time())}.log").write_bytes((Path(name) / "farm.log").read_bytes())
            run.machine.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
