"""The farm under test: one that runs already, or one that is started for the run and stopped with it."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.load.sockets import Address, resolve
from bench.machine import leftovers
from bench.machine.ports import free_ports
from bench.server_process import START_SECONDS, environment, remove_stale_folders, spawn, stop_group, wait_until_up
from bench.store_servers.running import StoreServers
from router.common import store_kinds
from router.common.admin_address import AddressError, AdminAddress, token_of_file
from router.common.files import FileError

START_SECONDS_A_WORKER: Final = 0.5
_NEEDS_MORE: Final = re.compile(r"^(dialects\.\w+) needs a store with ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Status:
    """What `GET /status` on the admin port says, as far as the bench needs it. Shards by their number as text.
    `capacity`: connections that the workers take in all, None if they do not report it. `python`: the interpreter, and
    how it was built (`router.common.interpreter`), empty if it does not report it."""

    routers: list[int]
    workers: dict[str, int]
    connections: dict[str, int]
    gc_pause_max_ms: float | None
    capacity: int | None = None
    python: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Farm:
    """A farm that answers. `supervisor` is its pid if the bench started it; `router`: where app servers reach it, empty
    if that is not known; `store`: the servers of its store that were started for it; `others`: where its other
    hosts take devices; `proxy`: the pid of what was started in front of it; `token`: for its admin port."""

    address: Address
    host: str
    path: str
    admin: str
    supervisor: int | None = None
    settings: dict[str, object] = field(default_factory=dict)
    router: str = ""
    store: StoreServers | None = None
    others: tuple[Address, ...] = ()
    proxy: int | None = None
    token: str = field(default="", repr=False)

    def status(self) -> Status | None:
        """The farm's status, None if there is no admin port to ask."""
        if not self.admin:
            return None
        code, body = get(self.admin, "/status", self.token)
        if code != 200:
            hint = "--token-file gives a token" if code in (401, 403) else "--admin '' does without"
            raise BenchError(f"GET {self.admin}/status answered {code} ({hint})")
        try:
            return read_status(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(f"GET {self.admin}/status is not understood: {error!r}") from None

    def groups(self, status: Status | None) -> dict[str, list[int]]:
        """Its pids by what they are, as far as the status says them."""
        groups: dict[str, list[int]] = {}
        if status is not None:
            groups["router"] = status.routers
            groups["workers"] = list(status.workers.values())
        if self.supervisor is not None:
            groups["supervisor"] = [self.supervisor]
        if self.store is not None:
            groups["store"] = self.store.pids
        if self.proxy is not None:
            groups["proxy"] = [self.proxy]
        return groups


def read_status(body: dict[str, Any]) -> Status:
    """Raises KeyError, TypeError or ValueError for a body of another shape."""
    rows = body["workers"]
    pauses = [row["gc_pause_max_seconds"] * 1000 for row in rows if row.get("gc_pause_max_seconds") is not None]
    capacities = [int(row["max_connections"]) for row in rows if row.get("max_connections") is not None]
    return Status(
        [int(router["pid"]) for router in body["routers"] if router.get("pid")],
        {str(row["shard"]): int(row["pid"]) for row in rows if row.get("pid")},
        {str(row["shard"]): int(row.get("connections") or 0) for row in rows},
        max(pauses, default=None),
        sum(capacities) if len(capacities) == len(rows) else None,
        {str(key): str(value) for key, value in body.get("python", {}).items()},
    )


def get(base: str, path: str, token: str = "") -> tuple[int, bytes]:
    """One GET; raises BenchError if nothing answers. base: without a token in it."""
    parts = urlsplit(base)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"no answer from {base}{path}: {error} (--admin names the admin port)") from None
    finally:
        connection.close()


def attach(url: str, admin: str, token_file: Path | None = None) -> Farm:
    """A farm that runs already. admin: its admin port, or "". token_file: with the token for it; else one that stands
    in `admin`, or for this machine the farm's own variable, FARM_ADMIN_TOKEN.

    Raises:
      BenchError: not a `ws://` URL, or nothing by that name; no address of an admin port, or no token in the file.
    """
    parts = urlsplit(url)
    if parts.scheme != "ws" or not parts.hostname:
        raise BenchError(f"--url {url}: expected ws://host:port/path")
    try:
        address = resolve(parts.hostname, parts.port or 80)
    except OSError as error:
        raise BenchError(f"--url {url}: {error}") from None
    farm = Farm(address, parts.netloc, parts.path or "/", "")
    if admin:
        try:
            place = AdminAddress.of(admin)
            farm.token = place.token if token_file is None else token_of_file("--token-file", token_file)
        except AddressError as error:
            raise BenchError(f"--admin {error}") from None
        except FileError as error:
            raise BenchError("; ".join(error.problems)) from None
        if not farm.token and place.may_have():
            farm.token = os.environ.get("FARM_ADMIN_TOKEN", "")
        farm.admin = place.url
    return farm


@dataclass(slots=True)
class Launched:
    """A farm that was started, and may not serve yet. `folder`: its data."""

    farm: Farm
    process: "subprocess.Popen[bytes]"
    folder: Path
    log: Path

    def wait(self, interrupt: Interrupt, patience: float) -> None:
        """Until it is healthy.

        Raises:
          BenchError: it did not come up; with the last lines that it wrote.
        """
        admin = self.farm.admin
        wait_until_up("the farm", lambda: get(admin, "/health")[0] == 200, self.process, self.log, interrupt, patience)


def patience_for(workers: int) -> float:
    """Seconds that a farm may take to start."""
    return START_SECONDS + START_SECONDS_A_WORKER * workers


@contextmanager
def started(
    workers: int,
    store: str,
    interrupt: Interrupt,
    extra: tuple[str, ...] = (),
    join: Callable[[], None] | None = None,
    slowness: float = 1.0,
) -> Iterator[Farm]:
    """A farm on free ports of loopback, with its data in a temporary folder; stopped and removed with the
    block.

    Args:
      extra: settings, each as KEY=VALUE
      join: what its first process runs before it is a farm: joins a control group, say; system calls only
      slowness: how many times as long as usual it may take to start

    Raises:
      BenchError: it did not come up; with the last lines that it wrote.
    """
    remove_stale_folders()
    with launched(workers, store, extra, join) as one:
        one.wait(interrupt, patience_for(workers) * slowness)
        yield one.farm


@contextmanager
def launched(
    workers: int,
    store: str,
    extra: tuple[str, ...] = (),
    join: Callable[[], None] | None = None,
    host: str = "127.0.0.1",
) -> Iterator[Launched]:
    """The same without waiting until it serves. host: the address of loopback that it listens on."""
    folder = Path(tempfile.mkdtemp(prefix=leftovers.name("")))
    device_port, router_port, admin_port = free_ports(3)
    command = [
        *(sys.executable, "-P", "-m", "farm", "start", "--workers", str(workers), "--host", host),
        *(
            "--device-port",
            str(device_port),
            "--router-port",
            str(router_port),
            "--admin-port",
            str(admin_port),
        ),
        *("--data", str(folder / "data"), "--set", f"store.kind={store}", "--set", "drain.seconds=1"),
        *(word for setting in extra for word in ("--set", setting)),
    ]
    log = folder / "log"
    process: subprocess.Popen[bytes] | None = None
    try:
        process = spawn(command, log, join=join)
        farm = Farm(
            Address(int(socket.AF_INET), host, device_port),
            f"{host}:{device_port}",
            "/",
            f"http://127.0.0.1:{admin_port}",
            process.pid,
            {"workers": workers, "store": store, "set": list(extra)},
            f"http://{host}:{router_port}",
        )
        yield Launched(farm, process, folder / "data", log)
    finally:
        if process is not None:
            stop_group(process)
        shutil.rmtree(folder, ignore_errors=True)


def dialects_off(kind: str, settings: tuple[str, ...]) -> tuple[str, ...]:
    """Settings that turn off those dialects that need more than a store of this kind can do.

    Raises:
      BenchError: one of them is asked for.
    """
    if store_kinds.by_name(kind).can == frozenset(store_kinds.Shape):
        return ()
    words = [word for setting in (f"store.kind={kind}", *settings) for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "farm", "check-config", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        cwd="/",
        check=False,
    )
    off = tuple(f"{name}=false" for name in _NEEDS_MORE.findall(done.stderr + done.stdout))
    if asked_for := [setting for setting in settings if f"{setting.partition('=')[0]}=false" in off]:
        raise BenchError(f"{asked_for[0]} needs more than a store of {kind} can do")
    return off
