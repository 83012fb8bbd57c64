"""The load processes of app servers: how they push, how they are started, and what they report."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from bench.errors import BenchError
from bench.load.dialect import Signer
from bench.load.frames import PeerError
from bench.load.http_bytes import origin_of, split_endpoint
from bench.load.link import Message
from bench.load.protocols import REFERENCE
from bench.load.samples import Pushes
from bench.load.sockets import Address, resolve
from bench.progress import Progress
from bench.runs.away import Away
from bench.runs.collected import Setup
from bench.runs.load_processes import Child, LoadProcesses
from bench.runs.virtual_users import RECEIVE_SECONDS

ANSWER_SECONDS: Final = 10.0
START_SECONDS: Final = 0.1
"""From `go` to the first push: all processes have their connections by then, and begin together."""


@dataclass(frozen=True, slots=True)
class PushPlan:
    """How to push. `rate` 0 is flat out; `grace` is how long an accepted push may take to arrive before it is lost.
    A run ends after `seconds`, or earlier after `count` pushes; 0: no limit by it. `payload`: bytes of data that a
    push carries. `online`: the share of the devices that is connected. A push has `answer_timeout` s to be answered.
    `wire`: the kind of push port, see `bench.load.protocols`. `batch`: pushes in one request, 0: each has its own, with
    a route of its own. `keeps_all`: no message takes the place of another. `signer`: whose header every push has; None:
    it has none. `spread`: the load processes push to these instead, in turn, each `http://host:port`; there are as many
    processes at least."""

    connections: int = 64
    processes: int = 1
    seconds: float = 10.0
    rate: float = 0.0
    half: bool = False
    grace: float = 5.0
    endpoint: str = ""
    count: int = 0
    payload: int = REFERENCE.payload
    online: float = 1.0
    answer_timeout: float = ANSWER_SECONDS
    wire: str = REFERENCE.wire
    keeps_all: bool = REFERENCE.keeps_all
    signer: Signer | None = None
    batch: int = 0
    spread: tuple[str, ...] = ()


def start_app_servers(processes: LoadProcesses, setup: Setup, plan: PushPlan, away: Away | None = None) -> list[Child]:
    """Start the app servers, for all endpoints that devices reported; `go` makes them push."""
    endpoints, channels = setup.endpoints, setup.channels
    if away is not None:
        endpoints, channels = endpoints + away.setup.endpoints, channels + away.setup.channels
    try:
        host, port, header, _ = split_endpoint(endpoints[0])
        paths = [split_endpoint(endpoint)[3] for endpoint in endpoints]
        authorization = plan.signer.authorization(origin_of(endpoints[0])) if plan.signer is not None else ""
    except PeerError:
        raise BenchError(f"can't push to the endpoint {endpoints[0]!r}: expected http://host:port/...") from None
    named = plan.spread or ((plan.endpoint,) if plan.endpoint else ())
    targets = [_target(url) for url in named] or [(_resolved(host, port), header)]
    count = min(max(plan.processes, len(plan.spread)), plan.connections, len(paths))
    share, rest = divmod(plan.connections, count)
    children = [
        processes.start(
            "batchers" if plan.batch else "pushers",
            "a load process of app servers",
            channels[number::count].tobytes(),
            b"\n".join(paths[number::count]),
            address=targets[number % len(targets)][0],
            host=targets[number % len(targets)][1],
            connections=share + (number < rest),
            timeout=plan.answer_timeout,
            payload=plan.payload,
            wire=plan.wire,
            authorization=authorization,
            batch=plan.batch,
        )
        for number in range(count)
    ]
    processes.gather(children, "up")
    return children


def _target(url: str) -> tuple[Address, str]:
    """Where to push, and the Host header."""
    parts = urlsplit(url)
    return _resolved(parts.hostname or "", parts.port or 80), parts.netloc


def _resolved(host: str, port: int) -> Address:
    try:
        return resolve(host, port)
    except OSError as error:
        raise BenchError(f"the router at {host}:{port}: {error}") from None


@dataclass(slots=True)
class Outcome:
    """What the pushers reported of a run; times in microseconds. `unsent`: due and never sent."""

    pushes: Pushes = field(default_factory=Pushes)
    errors: Counter[str] = field(default_factory=Counter)
    start: int = 0
    end: int = 0
    unsent: int = 0
    connections: int = 0

    def add(self, message: Message) -> None:
        """One pusher's part."""
        self.pushes.channels.extend(message.numbers(0, "I"))
        self.pushes.versions.extend(message.numbers(1, "q"))
        self.pushes.statuses.extend(message.numbers(2, "H"))
        self.pushes.times.extend(message.numbers(3, "I"))
        self.errors.update(message.fields["errors"])
        self.start = min(self.start or message.fields["start"], message.fields["start"])
        self.end = max(self.end, message.fields["end"])
        self.unsent += message.fields["unsent"]
        self.connections += message.fields["connections"]


def wait_for_pushers(processes: LoadProcesses, pushers: list[Child], progress: Progress, count: int = 0) -> Outcome:
    """Until all of them have reported what they did; `count` pushes were asked for, 0: as many as fit in the time."""
    outcome = Outcome()
    waiting = {child.pid for child in pushers}
    began = time.monotonic()
    halted = False
    for child in pushers:
        child.progress = {}
    while waiting:
        if processes.interrupt.requested and not halted:
            halted = True
            processes.send(pushers, "halt")
        for child, message in processes.receive(RECEIVE_SECONDS):
            if message.kind == "pushed":
                waiting.discard(child.pid)
                outcome.add(message)
        pushed = sum(child.progress.get("pushed", 0) for child in pushers)
        progress.update(pushed if count else round(time.monotonic() - began, 1), pushed, "pushes/s")
    return outcome
