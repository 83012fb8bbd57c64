"""Whole farms of real processes for the end-to-end tests, and the HTTP clients that more than one of them needs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

ROOT: Final = Path(__file__).parents[2]
START_S: Final = 60.0
STOP_S: Final = 60.0
PATIENCE_S: Final = 20.0
"""How long anything may take that is expected at once. A deadline, no measure."""
SOON_S: Final = 3 * PATIENCE_S
"""How long it may take where many take part."""
_POLL_S: Final = 0.02
_LOG_TAIL: Final = 80
_FARM_DEFAULTS: Final = {
    "log.format": "json",
    "drain.seconds": 0,
    "drain.notice": 0,
    "worker.close_timeout": 1,
    "farm.reload_watch": 0.2,
}
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE: Final = (
    "GET / HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
)
"""The request of an upgrade, but for the empty line that ends it."""

T = TypeVar("T")
F = TypeVar("F", bound="Farm")
Json = dict[str, Any]

started: list[Farm] = []
"""Every farm of the test that runs, for the log in a failure's report."""


def until(found: Callable[[], T], what: str, patience: float = PATIENCE_S) -> T:
    """Ask until the answer is true. Returns: that answer."""
    deadline = time.monotonic() + patience
    while not (answer := found()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(_POLL_S)
    return answer


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Something that blocks, while the tasks of a test go on."""
    return await trio.to_thread.run_sync(function, *arguments)


async def soon(found: Callable[[], object], what: str, details: Callable[[], object] = str) -> None:
    """Wait until something is true, while the tasks of a test go on."""
    with trio.move_on_after(SOON_S):
        while not found():
            await trio.sleep(_POLL_S)
        return
    raise AssertionError(f"not within {SOON_S:g} s: {what} {details()}")


class Farm:
    """One `farm start` on a data folder. The ports are free ones, and the same at every start of this object."""

    def __init__(
        self,
        data: Path,
        settings: Json | None = None,
        workers: int = 2,
        environment: dict[str, str] | None = None,
        root: Path = ROOT,
    ) -> None:
        self.data = data
        self.root = root
        self.environment = environment or {}
        self.settings = _FARM_DEFAULTS | _routers() | (settings or {})
        self.workers = workers
        self.device_port = self.router_port = self.admin_port = 0
        self.log_file = data.parent / f"{data.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    # ------------------------------------------------------------------ start and stop

    def arguments(self) -> list[str]:
        """The command line; also for a second farm that is to get in the way of this one."""
        ports = ("--device-port", self.device_port, "--router-port", self.router_port, "--admin-port", self.admin_port)
        options = ("--workers", self.workers, "--host", "127.0.0.1", *ports, "--data", self.data)
        sets = (part for name, value in self.settings.items() for part in ("--set", f"{name}={_text(value)}"))
        return [sys.executable, "-m", "farm", "start", *map(str, options), *sets]

    def descriptors(self) -> list[int]:
        """What the command line inherits besides stdin, stdout and stderr."""
        return []

    def start(self) -> None:
        """Start, and wait until GET /health answers 200."""
        self.launch()
        self.wait_started()

    def launch(self) -> None:
        """Start, and do not wait."""
        self._log_from = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            # A session of its own: whatever it starts can be found by the session's number, whoever its parent is.
            self._process = subprocess.Popen(
                self.arguments(),
                cwd=self.root,
                env=environ() | {"PYTHONPATH": str(self.root)} | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.descriptors(),
                start_new_session=True,
            )
        started.append(self)

    def wait_started(self) -> None:
        """Wait until GET /health answers 200."""
        ready = until(self._ready, "farm.ready in the log", START_S)
        self.device_port, self.router_port, self.admin_port = (
            int(ready[name].rpartition(":")[2]) for name in ("devices", "app_servers", "admin")
        )
        self.wait_healthy()

    def _ready(self) -> Json | None:
        assert self._process is not None and self._process.poll() is None, f"farm start failed:\n{self.log_tail()}"
        return next((line for line in self.events("farm.ready")), None)

    def stop(self) -> None:
        """SIGTERM; it must end with exit code 0 and leave no process behind."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            process.terminate()
            assert process.wait(STOP_S) == 0, f"exit code of the farm\n{self.log_tail()}"
            assert self._session_is_empty(process.pid), f"the farm left processes behind:\n{_session(process.pid)}"
        finally:
            _kill_session(process)
            started.remove(self)

    def kill(self) -> None:
        """SIGKILL to every process at the same moment; returns when all have ended."""
        process = self._take_process()
        _kill_session(process)

    def wait_ended(self) -> int:
        """Wait until it has ended of itself, with every process of it. Returns: exit code."""
        process = self._take_process()
        try:
            code = process.wait(STOP_S)
            assert self._session_is_empty(process.pid), f"the farm left processes behind:\n{_session(process.pid)}"
            return code
        finally:
            _kill_session(process)

    def _take_process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        process, self._process = self._process, None
        started.remove(self)
        return process

    def _session_is_empty(self, number: int) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while _session(number):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    # ------------------------------------------------------------------ its state

    def exit_code(self) -> int | None:
        """That of the supervisor, if it has ended."""
        return None if self._process is None else self._process.poll()

    @property
    def runs(self) -> bool:
        """Whether it was started, and nobody has ended it."""
        return self._process is not None

    def processes(self) -> dict[int, str]:
        """Every process of it: pid to title. From the kernel, not from the farm itself."""
        return {} if self._process is None else _session(self._process.pid)

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._process is not None
        return self._process.pid

    def admin(self, path: str) -> tuple[int, bytes]:
        """GET a page of the admin port. Returns: status, body."""
        token = self.settings.get("admin.token") or self.settings.get("admin.read_token")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def status(self) -> Json:
        """The admin port's /status."""
        code, body = self.admin("/status")
        assert code == 200
        found: Json = json.loads(body)
        return found

    def healthy(self) -> bool:
        """Whether GET /health answers 200."""
        return self.admin("/health")[0] == 200

    def wait_healthy(self) -> Json:
        """Wait until GET /health answers 200. Returns: the status then."""
        until(self.healthy, "GET /health answers 200", START_S)
        return self.status()

    def worker_pid(self, shard: int) -> int:
        """The process of a shard."""
        pid: int = self.status()["workers"][shard]["pid"]
        return pid

    def router_pid(self) -> int:
        """The router's process."""
        pid: int = self.status()["routers"][0]["pid"]
        return pid

    def counter(self, name: str) -> int:
        """A counter of the workers, summed as the router last received it."""
        return sum(int(row.get(name, 0)) for row in self.status()["workers"])

    def events(self, name: str) -> Iterator[Json]:
        """The log lines of this start with this event."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_from)
            for line in log:
                if line.endswith(b"\n") and line.startswith(b"{"):
                    found = json.loads(line)
                    if found.get("event") == name:
                        yield found

    def log_tail(self) -> str:
        """The end of the log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL:])

    @property
    def device_url(self) -> str:
        """Where devices connect."""
        return f"ws://127.0.0.1:{self.device_port}/"

    def url(self, path: str) -> str:
        """A page of the router port."""
        return f"http://127.0.0.1:{self.router_port}{path}"


def command(farm: Farm, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    """`farm NAME` against a running farm, from the source tree as it is in the repository."""
    line = [sys.executable, "-m", "farm", name, *more]
    return subprocess.run(line, env=environ(), cwd=farm.data, check=False, capture_output=True, text=True, timeout=60)


def reload(farm: Farm) -> None:
    """A rolling reload by SIGHUP, from its beginning to its end."""
    before = len(list(farm.events("reload.done")))
    os.kill(farm.pid, signal.SIGHUP)
    until(lambda: len(list(farm.events("reload.done"))) > before, "the reload is done", START_S)


def environ() -> dict[str, str]:
    """The environment without settings of a farm in it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FARM_")}
    return clean | {"PYTHONPATH": str(ROOT)}


def _routers() -> Json:
    """So many routers for every farm whose test does not say (`make test-routers`)."""
    routers = os.environ.get("TEST_ROUTERS")
    return {"router.routers": routers} if routers else {}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _session(number: int) -> dict[int, str]:
    """Processes of a session that are not zombies: pid to title."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == number and fields[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip()
        except (OSError, IndexError):
            continue  # it ended while it was looked at
    return found


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_S)
    until(lambda: not _session(process.pid), "every process of the farm has gone")


@contextmanager
def running(farm: F) -> Iterator[F]:
    """This farm for the time of the block; at its end it is stopped by SIGTERM, unless the test has ended it."""
    try:
        farm.start()
        yield farm
    except BaseException:
        if farm in started:
            farm.kill()
        print(farm.log_tail(), file=sys.stderr)
        raise
    else:
        farm.stop()


@contextmanager
def running_farm(
    data: Path,
    settings: Json | None = None,
    workers: int = 2,
    environment: dict[str, str] | None = None,
    root: Path = ROOT,
) -> Iterator[Farm]:
    """The same of one with these settings.

    environment: what it is started with besides. root: the source tree that it runs from, and where it runs."""
    with running(Farm(data, settings, workers, environment, root)) as farm:
        yield farm


# ---------------------------------------------------------------------- clients


@dataclass(frozen=True)
class HttpAnswer:
    """What curl or a plain socket got."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


def curl(*arguments: str, stdin: bytes = b"") -> HttpAnswer:
    """Run curl, or skip the test for want of it. Only the last answer counts, where there was a 100 before it."""
    from support.installed import find_program  # which imports this module

    command = [
        find_program("curl"),
        "--silent",
        "--show-error",
        "--include",
        "--noproxy",
        "*",
        "--max-time",
        "30",
        *arguments,
    ]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=True)
    rest = done.stdout
    while True:
        head, _, rest = rest.partition(b"\r\n\r\n")
        answer = _answer(head, rest)
        if answer.status != 100:
            return answer


def _answer(head: bytes, body: bytes) -> HttpAnswer:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return HttpAnswer(int(first.split()[1]), headers, body)


class Raw:
    """A plain socket: for what no proper client sends."""

    def __init__(self, port: int, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def rest(self) -> bytes:
        """Everything up to the other side's end of the connection, however that comes."""
        parts = []
        try:
            while part := self.socket.recv(65_536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)

    def answers(self, count: int) -> list[HttpAnswer]:
        """So many HTTP answers from a connection that stays open."""
        found = []
        for _ in range(count):
            response = http.client.HTTPResponse(self.socket)
            # HTTPResponse would read ahead into a buffer of its own and lose what follows.
            response.fp.close()
            response.fp = self.socket.makefile("rb", buffering=0)
            response.begin()
            found.append(HttpAnswer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()))
        return found


def refusal(port: int, request: bytes) -> HttpAnswer:
    """Send a request that ends the connection. Returns: the answer."""
    with Raw(port) as raw:
        raw.send(request)
        head, _, body = raw.rest().partition(b"\r\n\r\n")
        return _answer(head, body)


def new_channel() -> str:
    """A channel ID as clients make them."""
    return str(uuid.uuid4())
