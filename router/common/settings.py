"""The sections that the router process reads. Sections of a dialect stand in the dialect's module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from router.common import option_texts as texts
from router.common import store_kinds
from router.common.auth_settings import AuthOptions
from router.common.client_address import Networks
from router.common.cluster_settings import ClusterOptions
from router.common.limit_settings import LimitOptions
from router.common.log_forms import FORMATS
from router.common.memcached_settings import MemcachedOptions
from router.common.options import Section, option
from router.common.redis_settings import RedisOptions
from router.common.tls_settings import TlsOptions
from router.common.trace_settings import TraceOptions

MAX_ROUTERS: Final = 64
"""Of a farm."""
_NETWORKS: Final = "a list of networks, 10.0.0.0/8 or fd00::/8 with no bit set behind the prefix, or single addresses"


@dataclass(frozen=True)
class Listen(Section):
    SECTION: ClassVar[str] = "listen"
    HELP: ClassVar[str] = (
        "Where the farm listens, which needs a restart to change, and which proxies it believes. A socket that systemd "
        "gives under the name of a port's option is used in its place."
    )
    AT_START: ClassVar[frozenset[str]] = frozenset(
        ("host", "device_port", "router_port", "admin_host", "admin_port", "backlog")
    )

    host: str = option(
        "0.0.0.0",
        "address of the device port and the router port; :: for IPv6 and IPv4",
        expects="an IP address or the name of a host",
        check=texts.host,
    )
    device_port: int = option(8080, "devices connect here (WebSocket); 0 takes a free port", ge=0, le=65535)
    router_port: int = option(8081, "app servers push here (HTTP); 0 takes a free port", ge=0, le=65535)
    admin_host: str = option(
        "127.0.0.1",
        "address of the admin port: health, metrics and status are not for everyone",
        expects="an IP address or the name of a host",
        check=texts.host,
    )
    admin_port: int = option(8082, "health, metrics and status (HTTP); 0 takes a free port", ge=0, le=65535)
    backlog: int = option(4096, "connections that wait to be accepted, per listener", unit="connections", ge=1)
    proxy_from: tuple[str, ...] = option(
        (),
        "proxies whose connections to the device port and the router port begin with a header of the PROXY protocol "
        "(version 1 or 2) with the client's address; without it they are closed. Empty: none",
        expects=_NETWORKS,
        check=texts.network,
    )
    forwarded_from: tuple[str, ...] = option(
        (),
        "proxies whose Forwarded or X-Forwarded-For counts: the right-most address that is not in this list is the "
        "client's. Empty: none",
        expects=_NETWORKS,
        check=texts.network,
    )

    @property
    def proxies(self) -> Networks:
        """All proxies that are believed."""
        return Networks((*self.proxy_from, *self.forwarded_from))


@dataclass(frozen=True)
class Data(Section):
    SECTION: ClassVar[str] = "data"
    HELP: ClassVar[str] = "Where the farm keeps what must outlive it. A change needs a restart."
    AT_START: ClassVar[frozenset[str]] = frozenset(("dir",))

    dir: str = option(
        "./farm-data",
        "folder of the store, the token key and the control sockets; made with mode 0700 where it is missing",
        expects="the path of a folder",
        check=texts.path,
    )


@dataclass(frozen=True)
class Log(Section):
    SECTION: ClassVar[str] = "log"
    HELP: ClassVar[str] = (
        "Log lines go to stderr, one line an event. Where that is systemd's journal each has a priority and no time."
    )

    format: str = option("text", "readable text, one JSON object a line, or logfmt", choices=FORMATS)
    level: str = option("info", "lines below this level are left out", choices=("debug", "info", "warning", "error"))
    devices: float = option(
        0.0, "share of device connections that get a line at their end; at the level debug all do", ge=0, le=1
    )
    pushes: bool = option(
        False, "a line of JSON for each push that is accepted, delivered, acknowledged, or lost; whatever the level"
    )
    max_waiting_bytes: int = option(
        4_194_304, "such lines of a router that may wait for stderr; beyond, they are lost", unit="bytes", ge=65_536
    )


@dataclass(frozen=True)
class DrainOptions(Section):
    SECTION: ClassVar[str] = "drain"
    HELP: ClassVar[str] = "How a farm ends on SIGTERM, and how devices are let go then and on a reload."

    notice: float = option(
        0.0,
        "first GET /ready answers 503 for so long, while the farm serves as before, so that balancers use other hosts",
        unit="s",
        ge=0,
    )
    seconds: float = option(10.0, "devices are closed (1001) spread evenly over this time", unit="s", ge=0)
    rate: float = option(
        0.0,
        "devices that the farm, all its workers together, lets go in a second; 0: drain.seconds counts instead",
        unit="devices",
        ge=0,
    )
    deadline: float = option(
        900.0,
        "where drain.notice, and drain.rate, would take longer than this together, devices are let go faster",
        unit="s",
        ge=0,
    )

    def over(self, connections: int, passed: float = 0.0) -> float:
        """Seconds over which so many connections of the farm are let go, where the drain has gone on for `passed`."""
        return min(connections / self.rate, max(0.0, self.deadline - passed)) if self.rate else self.seconds

    def longest(self, passed: float = 0.0) -> float:
        """The same for any number of connections."""
        return max(0.0, self.deadline - passed) if self.rate else self.seconds


@dataclass(frozen=True)
class RouterOptions(Section):
    SECTION: ClassVar[str] = "router"
    HELP: ClassVar[str] = "The routers' processes. Another number of routers needs a restart."
    AT_START: ClassVar[frozenset[str]] = frozenset(("routers",))

    routers: int = option(
        1,
        "router processes, each with a part of the address map and of the store; a start with another number first "
        "copies what sqlite has stored",
        unit="processes",
        ge=1,
        le=MAX_ROUTERS,
    )
    nice: int = option(
        -10,
        "nice value of the supervisor, and of a router that is starved of CPU, or the lowest that RLIMIT_NICE allows: "
        "all others wait for these two; 0: as the farm was started",
        ge=-20,
        le=0,
    )


@dataclass(frozen=True)
class StoreOptions(Section):
    SECTION: ClassVar[str] = "store"
    HELP: ClassVar[str] = "What holds accepted messages until they are acknowledged. Another kind needs a restart."
    AT_START: ClassVar[frozenset[str]] = frozenset(("kind",))

    kind: str = option("sqlite", store_kinds.HELP, choices=store_kinds.NAMES)
    synchronous: str = option(
        "full", "sqlite: full survives a power cut, normal only a crash of the process", choices=("full", "normal")
    )
    inbox_limit: int = option(
        1000,
        "messages kept for one device; beyond, one with an urgency replaces what is less urgent, others are refused",
        unit="messages",
        ge=1,
    )
    inbox_bytes: int = option(
        4_194_304,
        "bodies kept for one device; beyond, one with an urgency replaces what is less urgent",
        unit="bytes",
        ge=65_536,
        le=33_554_432,
    )
    log_limit: int = option(1000, "events kept for one channel; the oldest goes first", unit="events", ge=1)
    log_bytes: int = option(
        4_194_304,
        "events kept for one channel; the oldest goes first, and one that is larger alone is not kept",
        unit="bytes",
        ge=65_536,
        le=33_554_432,
    )
    batch_limit: int = option(2000, "writes in one group commit", unit="writes", ge=1)
    queue_limit: int = option(
        50_000, "pushes that may wait for a commit before others are refused with 503", unit="pushes", ge=1
    )
    queue_bytes: int = option(
        67_108_864, "bodies that may wait for a commit before pushes are refused with 503", unit="bytes", ge=65_536
    )
    max_bytes: int = option(
        0,
        "all that is stored, by each router an equal part; beyond, pushes and registrations are refused with 503; "
        "0: no limit",
        unit="bytes",
        ge=0,
    )
    sweep_interval: float = option(30.0, "time between two looks for expired entries", unit="s", ge=0.1)
    sweep_batch: int = option(5000, "entries looked at in one sweep", unit="entries", ge=1)
    cache_mib: int = option(
        1,
        "sqlite page cache; what is not in it is read from the kernel's. More helps where many messages with bodies "
        "wait for devices that are away",
        unit="MiB",
        ge=1,
        le=1_048_576,
    )
    record_cache: int = option(
        50_000, "registrations of up to 256 bytes that a router remembers for ten minutes", unit="records", ge=0
    )


@dataclass(frozen=True)
class EndpointOptions(Section):
    SECTION: ClassVar[str] = "endpoint"
    HELP: ClassVar[str] = "The app servers' HTTP port. The limits are those of each router."

    url: str = option(
        "",
        "public base of push endpoints, e.g. https://push.example.org; empty: http://<host>:<router port>",
        expects="an http:// or https:// URL with a host, without blanks, user, query and fragment",
        check=texts.base_url_or_none,
    )
    max_connections: int = option(
        4096,
        "open connections of app servers; beyond, the one that was idle for longest is closed",
        unit="connections",
        ge=1,
    )
    max_refusals: int = option(
        64,
        "connections that are answered 503 at once because none is idle; further ones wait to be accepted",
        unit="connections",
        ge=1,
    )
    max_header_bytes: int = option(16_384, "request line and headers of one request", unit="bytes", ge=256)
    max_headers: int = option(100, "headers of one request", unit="headers", ge=1)
    max_body_bytes: int = option(1_048_576, "body of one request", unit="bytes", ge=1)
    max_batch: int = option(10_000, "pushes in one /v1/push request", unit="pushes", ge=1)
    max_pipelined: int = option(128, "requests of one connection in work at once", unit="requests", ge=1)
    requests_a_turn: int = option(
        32,
        "requests of one connection handled before others have their turn; fewer where more than 32 are at work",
        unit="requests",
        ge=1,
    )
    lines_a_turn: int = option(
        64, "lines of /v1/push requests handled before other requests have their turn", unit="lines", ge=1
    )
    max_lines_in_work: int = option(
        500,
        "lines of /v1/push requests that wait for the store or a device at once; a connection alone has half of them",
        unit="lines",
        ge=1,
    )
    max_buffered_bytes: int = option(
        67_108_864,
        "requests that are not whole, bodies in work, and unsent answers of all connections together; beyond, the "
        "largest is given up",
        unit="bytes",
        ge=1_048_576,
    )
    max_write_bytes: int = option(
        4_194_304,
        "bodies in work and unsent answers of one connection; beyond, its next request waits until some are sent",
        unit="bytes",
        ge=1024,
    )
    request_timeout: float = option(15.0, "from the first byte of a request to its last", unit="s", ge=0.1)
    idle_timeout: float = option(75.0, "a kept-alive connection without a request is closed", unit="s", ge=0.1)
    delivery_timeout: float = option(
        2.0, "how long a push waits for the worker before it is answered as stored", unit="s", ge=0.01
    )
    gather_ms: float = option(
        3.0,
        "while pushes come one after another, so long from one look for more to the next at most: a push costs less "
        "CPU and is answered later; a single push does not wait; 0: no push waits",
        unit="ms",
        ge=0,
        le=10,
    )
    cors: bool = option(False, "answer with CORS headers, so that web pages may push")


@dataclass(frozen=True)
class LinkOptions(Section):
    SECTION: ClassVar[str] = "link"
    HELP: ClassVar[str] = "The ZeroMQ links between routers and workers, and between two routers."

    heartbeat: float = option(0.5, "workers and routers send at least this often", unit="s", ge=0.05)
    lease: float = option(
        5.0,
        "a worker silent for this long loses its devices in the map until it announces them again",
        unit="s",
        ge=0.2,
    )
    member_grace: float = option(
        1.0,
        "members whose worker was lost leave their presence channels after this time, unless they are back by then",
        unit="s",
        ge=0,
    )
    queue_limit: int = option(
        20_000,
        "messages that may wait for one slow worker; beyond, pushes to it are stored only",
        unit="messages",
        ge=1,
    )
    high_water: int = option(
        1000,
        "envelopes, of a whole wake-up each, that ZeroMQ may hold for one end; beyond, messages wait at the other",
        unit="envelopes",
        ge=1,
    )
    max_held: int = option(
        20_000,
        "pushes held back for devices that are attaching; beyond, those with a TTL of 0 are not held",
        unit="pushes",
        ge=0,
    )
    max_results: int = option(
        100_000,
        "pushes that may wait for a worker's report that it wrote them; beyond, they are answered as stored",
        unit="pushes",
        ge=1,
    )
    max_recounts: int = option(
        1000,
        "requests for numbers of subscribers that may wait for the workers' newest; beyond, they get the last known",
        unit="requests",
        ge=1,
    )
    max_direct: int = option(
        1024, "answers to workers that join and to the supervisor that may wait; beyond, the oldest goes", ge=1
    )
    max_workers: int = option(1024, "workers that may be joined at once; more are refused", unit="workers", ge=1)
    max_unconfirmed: int = option(
        1024, "batches a worker may have unconfirmed before it stops reading from devices", unit="batches", ge=2
    )
    max_unconfirmed_messages: int = option(
        100_000, "messages in those batches before it stops reading from devices", unit="messages", ge=1
    )
    max_unconfirmed_bytes: int = option(
        4_194_304, "bytes of those batches before it stops reading from devices", unit="bytes", ge=65_536
    )
    max_message_bytes: int = option(
        67_108_864, "largest envelope on the link", unit="bytes", ge=65_536, le=2_147_483_647
    )
    forward_timeout: float = option(
        3.0,
        "how long a request waits for the router that owns what it is about, beyond endpoint.delivery_timeout; then it "
        "is answered 503, and may have happened",
        unit="s",
        ge=0.1,
    )
    max_forwarded: int = option(
        20_000,
        "operations that may wait for one other router, or after a start for the workers; beyond, their requests are "
        "answered 503",
        unit="operations",
        ge=1,
    )
    max_forwarded_bytes: int = option(
        16_777_216, "bytes of those operations, and of their answers at the other end", unit="bytes", ge=65_536
    )
    max_announced: int = option(
        2_000_000, "devices that one worker may announce before their inboxes have been read", unit="devices", ge=2000
    )
    announced_read: int = option(
        50, "inboxes read at once for a worker that announces its devices again", unit="devices", ge=1
    )
    max_broadcasts: int = option(
        1000, "broadcasts (small texts) of which every worker has a copy", unit="broadcasts", ge=1
    )
    max_broadcast_changes: int = option(
        1000, "changes of broadcasts that may wait for the store; more are refused", unit="changes", ge=1
    )


@dataclass(frozen=True)
class TokenOptions(Section):
    SECTION: ClassVar[str] = "token"
    HELP: ClassVar[str] = "Push endpoints carry sealed tokens (AES-GCM). A change needs a restart."
    AT_START: ClassVar[frozenset[str]] = frozenset(("keys",))  # an old router could not open a new worker's tokens

    keys: str = option(
        "",
        "keys from `farm token-key`, comma separated: the first seals, all open; empty: one is made in data.dir",
        pattern=r"|[\w-]{43}=?(\s*,\s*[\w-]{43}=?)*",
        expects="keys from `farm token-key`, comma separated",
        secret=True,
    )


SECTIONS: tuple[type[Section], ...] = (
    Listen,
    TlsOptions,
    Data,
    Log,
    DrainOptions,
    StoreOptions,
    RedisOptions,
    MemcachedOptions,
    ClusterOptions,
    RouterOptions,
    EndpointOptions,
    AuthOptions,
    LinkOptions,
    TokenOptions,
    LimitOptions,
    TraceOptions,
)
