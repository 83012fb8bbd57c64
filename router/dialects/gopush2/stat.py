"""What `/stat` says: the types and names of gopush2, as far as there is something here that they mean.

Numbers of Go's memory and scheduler are left out where Python has nothing like them. What concerns the process is the
router's, which answers; what was counted is all routers', and connections are all workers', as they last reported them.
"""

from __future__ import annotations

import gc
import os
import platform
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec

from router.common.memory import resident_bytes
from router.common.settings import Listen, Log
from router.dialects.app_server import Context
from router.dialects.gopush2.protocol import Gopush2Options

_encode: Final = msgspec.json.Encoder().encode
_LEVELS: Final = {"error": 0, "warning": 1, "info": 2, "debug": 3}


@dataclass(slots=True)
class Counts:
    """What has happened since a router was started, or all of them."""

    created: int = 0
    refreshed: int = 0
    added_message: int = 0
    expired_message: int = 0
    failed_message: int = 0


def summed(counts: Iterable[Mapping[str, int]]) -> Counts:
    """Those of all routers together."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return Counts(**total)


class Stat:
    """The pages of `/stat`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._begun = time.monotonic_ns()
        self._pages: dict[str, Callable[[Counts], Mapping[str, Any]]] = {
            "memory": _memory,
            "golang": _python,
            "server": self._server,
            "config": self._config,
            "confit": self._config,  # as gopush2 has it; its README says config
            "channel": _channel,
            "subscriber": self._subscriber,
        }

    def page(self, kind: str, counts: Counts) -> bytes:
        """JSON; nothing for a type that there is not."""
        page = self._pages.get(kind)
        return b"" if page is None else _encode(dict(sorted(page(counts).items())))

    def _server(self, _: Counts) -> Mapping[str, Any]:
        return {
            "uptime": time.monotonic_ns() - self._begun,
            "hostname": socket.gethostname(),
            "wd": os.getcwd(),
            "ppid": os.getppid(),
            "pid": os.getpid(),
            "pagesize": os.sysconf("SC_PAGESIZE"),
            "user": str(os.getuid()),
            "group": str(os.getgid()),
        }

    def _config(self, _: Counts) -> Mapping[str, Any]:
        """By the names of gopush2's own configuration file."""
        options = self._context.settings.get(Gopush2Options)
        listen = self._context.settings.get(Listen)
        return {
            "addr": _address(listen.host, options.tcp_port or listen.device_port),
            "admin_addr": _address(listen.host, listen.router_port),
            "message_expire_sec": options.message_expire,
            "channel_expire_sec": options.channel_expire,
            "max_stored_message": options.max_stored_message,
            "max_subscriber_per_key": options.max_subscriber_per_key,
            "heartbeat_sec": options.heartbeat,
            "auth": int(options.auth),
            "debug": int(options.debug),
            "protocol": int(options.tcp_port > 0),
            "log_level": _LEVELS[self._context.settings.get(Log).level],
        }

    def _subscriber(self, counts: Counts) -> Mapping[str, Any]:
        numbers = asdict(counts)
        found = {name: numbers[name] for name in ("created", "added_message", "expired_message", "failed_message")}
        workers = self._context.status().get("workers", ())
        for name, metric in (("cur_conn", "gopush2_devices"), ("total_conn", "gopush2_subscribed")):
            found[name] = sum(int(worker.get(metric, 0)) for worker in workers)
        return found


def _channel(counts: Counts) -> Mapping[str, Any]:
    return {"created": counts.created, "refreshed": counts.refreshed}


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _memory(_: Counts) -> Mapping[str, Any]:
    generations = gc.get_stats()
    return {
        "sys": resident_bytes(),
        "num_gc": sum(generation["collections"] for generation in generations),
        "enable_gc": gc.isenabled(),
        "debug_gc": gc.get_debug() != 0,
    }


def _python(_: Counts) -> Mapping[str, Any]:
    return {
        "compiler": platform.python_compiler(),
        "arch": platform.machine(),
        "os": sys.platform,
        "max_procs": len(os.sched_getaffinity(0)),
        "root": sys.base_prefix,
        "version": f"{platform.python_implementation()} {platform.python_version()}",
    }
