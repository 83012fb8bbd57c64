"""The sections of the settings that supervisor and workers read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from router.common import option_texts as texts
from router.common.admin_address import TOKEN
from router.common.options import Section, option


@dataclass(frozen=True)
class FarmOptions(Section):
    SECTION: ClassVar[str] = "farm"
    HELP: ClassVar[str] = "Processes. Another number of workers needs a restart."
    AT_START: ClassVar[frozenset[str]] = frozenset(("workers",))

    workers: str = option(
        "auto",
        "worker processes; auto is one a core",
        pattern="auto|[1-9][0-9]{0,3}",
        expects="auto or a whole number from 1",
    )
    restart_min: float = option(0.1, "first wait before a process that died is started again", unit="s", ge=0)
    restart_max: float = option(
        2.0,
        "longest such wait; it doubles from restart_min and goes back to it after a minute without a death",
        unit="s",
        ge=0.1,
    )
    start_timeout: float = option(
        60.0,
        "how long a new process may take until it serves, before a reload gives it up or it is killed and replaced; "
        "while a router reads its store no time is counted",
        unit="s",
        ge=1,
    )
    reload_watch: float = option(
        2.0, "a reload goes on to the next process, or ends, when the new one has lived so long", unit="s", ge=0
    )
    spawn_timeout: float = option(
        5.0, "how long the fork server may take to answer before another is started", unit="s", ge=0.5
    )
    hang_timeout: float = option(
        30.0, "a process that gives no sign of life for so long is killed and started again", unit="s", ge=1
    )
    drain_grace: float = option(
        5.0,
        "time after a drain, and worker.close_timeout, until a process that has not ended is killed",
        unit="s",
        ge=0.1,
    )

    @property
    def count(self) -> int:
        """`workers` as a number."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else int(self.workers)


@dataclass(frozen=True)
class AdminOptions(Section):
    SECTION: ClassVar[str] = "admin"
    HELP: ClassVar[str] = "The admin port: its connections, and who may do what there."
    AT_START: ClassVar[frozenset[str]] = frozenset(
        ("max_connections", "max_header_bytes", "max_body_bytes", "request_timeout", "idle_timeout")
    )

    max_connections: int = option(
        64,
        "open connections; beyond, the longest idle one makes room, or else the slowest that sends or reads",
        unit="connections",
        ge=1,
    )
    max_header_bytes: int = option(16_384, "request line and headers of one request", unit="bytes", ge=1024)
    max_body_bytes: int = option(1_048_576, "body of one request of /api/v1", unit="bytes", ge=1024)
    request_timeout: float = option(
        30.0, "from the headers of a request until its answer has been taken", unit="s", ge=0.1
    )
    idle_timeout: float = option(5.0, "until the headers of the first and of each next request", unit="s", ge=0.1)
    token: str = option(
        "",
        "who sends it (Authorization: Bearer, or as the password of Basic) may do everything; needed where "
        "listen.admin_host is not this machine alone, as is admin.token_file or admin.read_token",
        pattern=f"|{TOKEN.pattern}",
        expects="16 to 512 visible characters of ASCII",
        secret=True,
    )
    token_file: str = option(
        "",
        "a file with that instead; other users must not be able to read it",
        expects="the path of a file, or nothing",
        check=texts.path_or_none,
    )
    read_token: str = option(
        "",
        "who sends it may see everything and do nothing",
        pattern=f"|{TOKEN.pattern}",
        expects="16 to 512 visible characters of ASCII",
        secret=True,
    )
    read_token_file: str = option(
        "",
        "a file with that instead; other users must not be able to read it",
        expects="the path of a file, or nothing",
        check=texts.path_or_none,
    )
    hosts: tuple[str, ...] = option(
        (),
        "names under which the admin port is asked for, besides its address and those of this machine; a request for "
        "another one is refused, as it may be a page's whose name was led here",
        expects="a list of names or addresses, farm.internal for one",
        check=texts.host_in_lower_case,
    )
    show_contents: bool = option(
        False, "whether the contents of messages that wait for a device are shown; else only their sizes and ages"
    )


@dataclass(frozen=True)
class WorkerOptions(Section):
    SECTION: ClassVar[str] = "worker"
    HELP: ClassVar[str] = "Device connections, for each worker."

    max_connections: int = option(
        0, "open device connections; 0: as many as the descriptor limit allows", unit="connections", ge=0
    )
    max_request_bytes: int = option(8192, "upgrade request, with its headers", unit="bytes", ge=256)
    max_headers: int = option(64, "headers of the upgrade request", unit="headers", ge=1)
    admission_timeout: float = option(
        10.0,
        "how long a request may wait, unanswered, for the router's answer about it; beyond, 504",
        unit="s",
        ge=1,
        le=1000,
    )
    next_request_timeout: float = option(
        60.0,
        "from an answer to the next request on the same connection, where a client polls over HTTP",
        unit="s",
        ge=1,
        le=1000,
    )
    max_message_bytes: int = option(
        262_144, "longest message of a device; beyond, it is closed with 1009", unit="bytes", ge=125
    )
    max_fragments: int = option(256, "fragments of one message; beyond, it is closed with 1009", unit="fragments", ge=1)
    write_buffer_bytes: int = option(
        262_144,
        "output that waits for a slow device before it is closed, unless it is a single message; what a device missed "
        "of a log is sent in pages of a quarter of this",
        unit="bytes",
        ge=1024,
    )
    max_buffered_bytes: int = option(
        67_108_864,
        "such output and unfinished input of all devices of a worker; beyond, those with most of it are closed",
        unit="bytes",
        ge=65_536,
    )
    wakeup_interval: float = option(
        0.001,
        "under load a worker looks at its devices once in so long times farm.workers, in 0.1 s at most, where there "
        "are 8 or more of these; 0: as often as there is anything",
        unit="s",
        ge=0,
        le=0.1,
    )
    fanout_slice: int = option(
        256,
        "subscribers of a channel that events are written to before other devices have their turn",
        unit="subscribers",
        ge=1,
    )
    max_fanout_bytes: int = option(
        33_554_432,
        "events that wait for that, and the lists of their receivers; beyond, they are written at once",
        unit="bytes",
        ge=65_536,
    )
    max_held_bytes: int = option(
        16_777_216,
        "events that are held for connections which wait to be subscribed; beyond, those that wait longest are closed "
        "with 1013",
        unit="bytes",
        ge=65_536,
    )
    position_overlap: float = option(
        5.0,
        "of a client that comes back with one time for channels of several routers: so much from before that time is "
        "sent again of those that it was not given by; it covers the time that an event takes from a router to here",
        unit="s",
        ge=0,
        le=3600,
    )
    frames_a_turn: int = option(
        16, "frames of one device that are handled before the others have their turn", unit="frames", ge=1
    )
    message_timeout: float = option(
        30.0, "from the first byte of a message to its last; beyond, the device is closed with 1008", unit="s", ge=1
    )
    handshake_timeout: float = option(10.0, "from accept to the whole upgrade request", unit="s", ge=1, le=1000)
    write_timeout: float = option(10.0, "how long output may wait for a slow device", unit="s", ge=1)
    close_timeout: float = option(5.0, "how long a close handshake may take", unit="s", ge=1)
    accept_batch: int = option(128, "connections accepted in one step, at most", unit="connections", ge=1)
    accept_lag: float = option(
        0.5,
        "where what is ready waits for longer than this, in the worker or in the router, fewer connections are "
        "accepted: further devices wait in the kernel's queue, and those that are here are served; 0: never fewer",
        unit="s",
        ge=0,
    )
    accept_patience: float = option(
        15.0,
        "a connection that has waited there for longer is closed unanswered while fewer are accepted: its device "
        "is about to give up (Firefox does after 20 s), and serving it delays the others until they do; 0: none is",
        unit="s",
        ge=0,
    )
    keepalive: int = option(
        1800,
        "silence after which a device gets a WebSocket ping, to find out whether it is there; 0: none",
        unit="s",
        ge=0,
    )
    origins: tuple[str, ...] = option(
        (),
        "pages that may connect, by their Origin, exactly (or Referer, where a browser sends no Origin); empty: every "
        "page, and what is no page. With auth.url and cookies, empty: pages of the same host",
        expects="a list of origins as browsers send them, https://example.org for one",
        check=texts.origin,
    )
    retry_after: int = option(
        30,
        "Retry-After of a 503 when the worker is full or draining, when too many connect at once "
        "(limits.setups_wait), or when it cannot pass an app server to the router; at random from half of this to half "
        "as much again, so that not all come back together",
        unit="s",
        ge=1,
    )


OWN_SECTIONS: tuple[type[Section], ...] = (FarmOptions, AdminOptions, WorkerOptions)
