"""What a router says of itself: its status, and whether app servers should send it requests."""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

from router.auth.main_server import MainServer
from router.common import health
from router.common.memory import cpu_seconds, resident_bytes
from router.common.options import Settings
from router.common.partitions import fixed_owners
from router.common.places import Places
from router.common.refusals import BAD_METHOD
from router.common.settings import RouterOptions, StoreOptions
from router.common.tls import Contexts
from router.core.committer import GroupCommitter
from router.core.hub import Hub
from router.dialects import all_metrics, specs
from router.dialects.app_server import Service
from router.gate import Gate
from router.http.http_port import HttpPort
from router.http.message import Request, Response, rejection
from router.http.routes import Reply
from router.link import RouterLink
from router.watching import Watching


class Running(Protocol):
    """The parts of a router process that are asked."""

    settings: Settings
    number: int
    hub: Hub
    committer: GroupCommitter
    main_server: MainServer
    services: list[Service]
    watching: Watching | None
    gate: Gate | None
    port: HttpPort
    link: RouterLink
    places: Places
    tls: Contexts | None
    leaving: bool

    @property
    def busy(self) -> bool:
        """Whether something that was accepted is not finished."""


class RouterState:
    """Asked for now, whenever it is asked for."""

    def __init__(self, process: Running) -> None:
        """process: it need not be complete yet."""
        self._process = process
        self._started = time.monotonic()
        self._partitions = fixed_owners(process.settings.get(RouterOptions).routers).count(process.number)

    def store_refuses(self) -> str:
        """Why the store refuses what is to be kept; "": it does not."""
        return health.STORE_REFUSES if self._process.committer.refusing else ""

    def unready(self) -> list[str]:
        """Why app servers should send it no requests; empty: it is ready."""
        process = self._process
        found = [health.LEAVING] if process.leaving else []
        if refuses := self.store_refuses():
            found.append(refuses)
        if process.gate is not None and process.gate.look():
            found.append(process.gate.why)
        if process.port.full:
            found.append(health.NO_ROOM)
        return found

    def health_page(self, request: Request, reply: Reply) -> None:
        """The pages of `health.PAGES`."""
        if request.method not in (b"GET", b"HEAD"):
            reply(rejection(BAD_METHOD, ("Allow", "GET, HEAD")))
            return
        status, body = health.page(request.path.decode(), self.unready(), self._process.hub.sessions.devices)
        reply(Response(status, body, headers=(("Cache-Control", "no-store"),)))

    def metrics_page(self) -> bytes:
        """This router's metrics, and those of the workers of its host."""
        from router.common.exposition import exposition, families  # which costs megabytes

        found = self.status(self._process.places.host)  # shards are numbers on a host
        routers = [found["router"] | {name: found[name] for name in ("number", "memory", "cpu")}]
        return exposition(families(routers, found["workers"], *all_metrics(specs())))

    def status(self, host: str = "") -> dict[str, Any]:
        """This router's own numbers, and what the workers have sent it last. Of several routers the supervisor asks
        each one. host: ID of the host whose workers are meant; "": all."""
        process, hub, committer = self._process, self._process.hub, self._process.committer
        counters = hub.counters.snapshot()
        counters["addresses"] = len(hub.map)
        counters |= process.main_server.counts()
        for service in process.services:
            counters |= service.counts()
        if process.watching is not None:
            counters |= process.watching.counts()
        counters["store_commits"] = committer.commits
        counters |= committer.took.snapshot("store_commit_seconds")
        counters["store_writes"] = committer.written
        counters["store_waiting"] = committer.waiting
        counters["store_failures"] = committer.failures
        counters["store_ok"] = committer.healthy
        counters["store_unwritable"] = committer.unwritable
        counters["store_bytes"] = committer.used
        counters["store_unremoved"] = committer.unremoved
        counters["store_expired"] = committer.expired
        counters["messages_evicted"] = committer.evicted
        now = time.monotonic()
        workers = [
            {
                **session.snapshot,
                "shard": session.lease.shard,
                "pid": session.pid,
                "devices": session.lease.devices,
                "heard_s": round(max(0.0, process.link.heard_until - session.received_at), 3),
            }
            for session in sorted(hub.sessions, key=lambda session: session.lease.shard)
            if not host or session.host in ("", host)
        ]
        return {
            "number": process.number,
            "pid": os.getpid(),
            "store": process.settings.get(StoreOptions).kind,
            "partitions": self._partitions,
            "age": round(now - self._started, 1),
            "memory": resident_bytes(),
            "cpu": cpu_seconds(),
            "refusing": committer.refusing,
            "busy": process.busy,
            "settled": hub.settling.over,
            "silent": {str(number): round(owner.silent, 1) for number, owner in hub.asking.owners.items()},
            "hosts": self._hosts(),
            "certificate_expires": None if process.tls is None else process.tls.expires,
            "router": counters,
            "unready": self.unready(),
            "lease": {} if process.gate is None else process.gate.state(),
            "workers": workers,
        }

    def _hosts(self) -> dict[str, float]:
        """How many seconds ago a worker of each host was heard."""
        until, heard = self._process.link.heard_until, dict[str, float]()
        for session in self._process.hub.sessions:
            ago = round(max(0.0, until - session.received_at), 1)
            heard[session.host] = min(ago, heard.get(session.host, ago))
        return heard
