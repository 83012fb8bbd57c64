"""`farm bench fanout`: events to channels with many subscribers, counted at every one of them."""

import json
import tempfile
import time
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.interrupt import Interrupt
from bench.load.samples import ACCEPTED, NO_ANSWER, percentiles
from bench.load.shared_counts import SharedCounts
from bench.load.sockets import Address, resolve
from bench.machine import leftovers, procfs
from bench.machine.usage import Meter, Usage
from bench.progress import Progress
from bench.runs.load_processes import Child, LoadProcesses
from bench.runs.push import START_SECONDS, Outcome, wait_for_pushers
from bench.runs.virtual_users import Load, Setup, VirtualUsers, processes_for
from bench.target import Target

CHANNEL: Final = "{channel}"
LOOK_SECONDS: Final = 0.005
LEAST_PAYLOAD: Final = 20
"""The longest version and the dot behind it: an event is told by it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to send events. `channels`: that the subscribers share evenly; each event goes to one of them, a random one.
    `flat_out`: a run as fast as `in_flight` events a channel under way at once allow; `rate`: and a run at this rate,
    0: none; each of so many `seconds`. Events are posted over so many `connections`, of which each has one unanswered
    at most, by the `wire` of this name (see `bench.load.wires`), with its `authorization`, to `path` at `router`, where
    `{channel}` stands for the channel's number. What is missing when nothing has come for `grace` s is lost."""

    channels: int = 1
    flat_out: bool = True
    rate: float = 0.0
    seconds: float = 10.0
    in_flight: int = 2
    connections: int = 64
    payload: int = 120
    grace: float = 5.0
    answer_timeout: float = 10.0
    wire: str = "pusher"
    authorization: str = ""
    router: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Application:
    """An application of the Pusher dialect."""

    id: str
    key: str
    secret: str = field(repr=False)


OURS: Final = Application("1", "bench-key", "bench-secret")
"""What a farm that is started here has."""


def application_in(path: str) -> Application:
    """The first application of a file as `pusher.apps` names it.

    Raises:
      BenchError: there is none.
    """
    try:
        first = json.loads(Path(path).read_bytes())["applications"][0]
        return Application(str(first.get("id") or first["name"]), str(first["key"]), str(first["secret"]))
    except OSError as error:
        raise BenchError(f"--apps {path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise BenchError(f"--apps {path}: no application with id or name, key and secret") from None


def settings_for(stack: ExitStack) -> tuple[str, ...]:
    """The settings of a farm that has our application, whose file is there as long as the stack is open."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=leftovers.name("apps-")))
    file = Path(folder, "apps.json")
    ours = {"id": OURS.id, "name": "bench", "key": OURS.key, "secret": OURS.secret}
    file.write_text(json.dumps({"applications": [ours]}))
    return (f"pusher.apps={file}",)


def speaking(load: Load, plan: Plan, application: Application) -> tuple[Load, Plan]:
    """The same load in the Pusher dialect, with the plan's channels and payload."""
    prefix = f"fanout-{time.time_ns():x}-"  # of this run alone: a farm that runs may have other subscribers
    arguments = {"key": application.key, "channel": prefix}
    load = replace(load, protocol="pusher", arguments=arguments, shared=plan.channels, payload=plan.payload)
    path = f"/apps/{application.id}/events?{prefix}{CHANNEL}"
    return load, replace(plan, wire="pusher", authorization=f"{application.key}:{application.secret}", path=path)


class Subscribers(VirtualUsers):
    """The subscribers of a run. `counts` has a number for each of their processes."""

    module = "bench.load.subscribers"

    def __init__(
        self, processes: LoadProcesses, load: Load, address: Address, *, counts: SharedCounts, **where: Any
    ) -> None:
        self.counts = counts
        super().__init__(processes, load, address, **where)

    @classmethod
    def listening(cls, processes: LoadProcesses, load: Load, farm: Farm, counts: SharedCounts) -> "Subscribers":
        """Subscribers of a farm."""
        status = farm.status()
        listeners = len(status.workers) if status else 1
        return cls(processes, load, farm.address, counts=counts, host=farm.host, path=farm.path, listeners=listeners)

    def _more(self, number: int) -> dict[str, Any]:
        return {"counts": self.counts.path, "slot": number}

    def arrived(self) -> int:
        """Deliveries since the beginning; each counts once."""
        return sum(self.counts.numbers)

    def tally(self) -> "Tally":
        """What arrived since the last call."""
        self.processes.send(self.children, "tally")
        tally = Tally(array("I", bytes(4 * self.load.shared)))
        for message in self.processes.gather(self.children, "tallied"):
            tally.add(message.blobs, message.fields)
        return tally


@dataclass(slots=True)
class Arrived:
    """What became of an event: how many subscribers have it, and when the first and the last of them had it (us)."""

    count: int
    first: int
    last: int


@dataclass(slots=True)
class Tally:
    """What the subscribers saw in a run. `listening`: subscribers of each channel, at its end; `events`: by (channel,
    version); `gone`: (channel, version of the newest event that it has) of those that lost their connection."""

    listening: "array[int]"
    events: dict[tuple[int, int], Arrived] = field(default_factory=dict)
    gone: list[tuple[int, int]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, blobs: Sequence[bytes], faults: dict[str, int]) -> None:
        """One process's part, as `bench.load.subscribers` says it."""
        columns = [array(code) for code in "IqIqqIIq"]
        for column, blob in zip(columns, blobs, strict=True):
            column.frombytes(blob)
        for channel, version, count, first, last in zip(*columns[:5], strict=True):
            found = self.events.get((channel, version))
            if found is None:
                self.events[channel, version] = Arrived(count, first, last)
            else:
                found.count += count
                found.first, found.last = min(found.first, first), max(found.last, last)
        for channel, count in enumerate(columns[5]):
            self.listening[channel] += count
        self.gone += zip(columns[6], columns[7], strict=True)
        self.faults.update(faults)


@dataclass(slots=True)
class Deliveries:
    """What became of the events of a run, in deliveries. `expected` = delivered + undelivered + lost, of what was
    accepted: `undelivered` to subscribers that lost their connection, `lost`: to those that did not. `unexpected`:
    arrived and never sent. `to_first` and `to_last`: us from the moment at which an event was sent or due until the
    first of its subscribers had it, or the last; only of events that all have."""

    events: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    unanswered: int = 0
    expected: int = 0
    delivered: int = 0
    undelivered: int = 0
    lost: int = 0
    unexpected: int = 0
    refused_but_arrived: int = 0
    last: int = 0
    to_first: "array[int]" = field(default_factory=lambda: array("q"))
    to_last: "array[int]" = field(default_factory=lambda: array("q"))

    def fields(self) -> dict[str, Any]:
        """All but the samples, for JSON."""
        samples = ("last", "to_first", "to_last")
        return {name: getattr(self, name) for name in self.__slots__ if name not in samples}


def deliveries_of(outcome: Outcome, listening: Sequence[int], tally: Tally) -> Deliveries:
    """Match every event with its arrivals. `listening`: subscribers of each channel when the run began."""
    deliveries = Deliveries()
    events = dict(tally.events)
    accepted: dict[int, list[int]] = {}
    for channel, version, status in zip(
        outcome.pushes.channels, outcome.pushes.versions, outcome.pushes.statuses, strict=True
    ):
        deliveries.events += 1
        deliveries.statuses[status] += 1
        arrived = events.pop((channel, version), None)
        if status not in ACCEPTED:
            deliveries.refused += status != NO_ANSWER
            deliveries.unanswered += status == NO_ANSWER
            deliveries.refused_but_arrived += arrived.count if arrived else 0
            continue
        accepted.setdefault(channel, []).append(version)
        deliveries.expected += listening[channel]
        if arrived is None:
            continue
        deliveries.delivered += arrived.count
        deliveries.last = max(deliveries.last, arrived.last)
        if arrived.count == listening[channel]:
            deliveries.to_first.append(arrived.first - version)
            deliveries.to_last.append(arrived.last - version)
    deliveries.unexpected = sum(arrived.count for arrived in events.values())
    for versions in accepted.values():
        versions.sort()
    for channel, newest in tally.gone:
        versions = accepted.get(channel, [])
        deliveries.undelivered += len(versions) - bisect_right(versions, newest)
    deliveries.lost = max(0, deliveries.expected - deliveries.delivered - deliveries.undelivered)
    return deliveries


# ---- a run


def run(
    target: Target, load: Load, plan: Plan, application: Application, *, interrupt: Interrupt, progress: Progress
) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there, or no subscriber could be set up.
    """
    result: dict[str, Any] = {"payload": plan.payload, "channels": plan.channels}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        if not target.url:
            target = replace(target, settings=(*target.settings, *settings_for(stack)))
        farm = target.open(stack, interrupt)
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        load, plan = speaking(load, plan, application)
        plan = replace(plan, router=plan.router or farm.router)
        counts = stack.enter_context(SharedCounts(processes_for(load)))
        subscribers = Subscribers.listening(processes, load, farm, counts)
        before = _memory(farm)
        setup = subscribers.bring_up(progress, "setting up subscribers")
        result["setup"] = setup.fields()
        check(setup)
        after = _memory(farm)
        result["memory_a_subscriber"] = {group: (after[group] - before[group]) / setup.ready for group in after}
        result["runs"] = measure(subscribers, plan, farm.groups(farm.status()), progress)
    return result


def _memory(farm: Farm) -> dict[str, int]:
    """Private memory of the farm's processes by what they are, in bytes; nothing where it does not say which."""
    groups = farm.groups(farm.status())
    return {group: sum(procfs.private_memory(pid) or 0 for pid in pids) for group, pids in groups.items()}


def check(setup: Setup) -> None:
    """Raises BenchError if no subscriber is there."""
    if not setup.ready:
        failures = ", ".join(f"{count} x {kind}" for kind, count in setup.failures.most_common(3))
        raise BenchError(f"no subscriber could be set up ({failures or 'interrupted'})")


def measure(
    subscribers: Subscribers, plan: Plan, groups: dict[str, list[int]], progress: Progress
) -> list[dict[str, Any]]:
    """Events to subscribers that are up: flat out, and at the plan's rate. `groups`: the server's processes, by what
    they are.

    Raises:
      BenchError: events can't be posted to that address, or a load process ended.
    """
    processes = subscribers.processes
    publisher = _hire(subscribers, plan)
    runs = []
    for rate in (*((0.0,) if plan.flat_out else ()), *((plan.rate,) if plan.rate else ())):
        if not processes.interrupt.requested:
            runs.append(_run(subscribers, publisher, plan, rate, groups, progress))
    processes.dismiss([publisher])
    return runs


def _hire(subscribers: Subscribers, plan: Plan) -> Child:
    """Start the app servers."""
    parts = urlsplit(plan.router)
    try:
        address = resolve(parts.hostname or "", parts.port or 80)
    except (OSError, ValueError) as error:
        raise BenchError(f"can't post events to {plan.router!r}: {error}") from None
    listening = subscribers.tally().listening
    publisher = subscribers.processes.start(
        "bench.load.publishers",
        "the load process of app servers",
        array("I", range(plan.channels)).tobytes(),
        "\n".join(plan.path.replace(CHANNEL, str(number)) for number in range(plan.channels)).encode(),
        listening.tobytes(),
        address=address,
        host=parts.netloc,
        connections=plan.connections,
        timeout=plan.answer_timeout,
        payload=plan.payload,
        wire=plan.wire,
        authorization=plan.authorization,
        counts=subscribers.counts.path,
        window=plan.in_flight * sum(listening),
    )
    subscribers.processes.gather([publisher], "up")
    return publisher


def _run(
    subscribers: Subscribers,
    publisher: Child,
    plan: Plan,
    rate: float,
    groups: dict[str, list[int]],
    progress: Progress,
) -> dict[str, Any]:
    processes = subscribers.processes
    progress.step(f"sending {rate:g} events /s" if rate else "sending events flat out", plan.seconds)
    subscribers.collect()
    listening = subscribers.tally().listening  # what came before this run is not its concern
    before = subscribers.arrived()
    load = {"load subscribers": [child.pid for child in subscribers.children], "load app servers": [publisher.pid]}
    meter = Meter(groups | load)
    start = time.monotonic_ns() // 1000 + int(START_SECONDS * 1e6)
    processes.send([publisher], "go", start=start, seconds=plan.seconds, rate=rate, phase=0.0, count=0)
    outcome = wait_for_pushers(processes, [publisher], progress)
    accepted = zip(outcome.pushes.channels, outcome.pushes.statuses, strict=True)
    expected = sum(listening[channel] for channel, status in accepted if status in ACCEPTED)
    _wait_for_arrivals(subscribers, before, expected, plan.grace, progress)
    usage = meter.stop(procfs.cores())
    tally = subscribers.tally()
    held = subscribers.collect()
    deliveries = deliveries_of(outcome, listening, tally)
    seconds = max((deliveries.last - outcome.start) / 1e6, 1e-6) if deliveries.delivered else plan.seconds
    faults = {name: tally.faults[name] for name in ("duplicates", "reordered", "wrong_data")}
    bad = [*faults.values(), deliveries.lost, deliveries.unexpected, held.strays]
    return {
        "mode": "open loop" if rate else "flat out",
        "rate": rate or None,
        "seconds": seconds,
        "deliveries_a_second": deliveries.delivered / seconds,
        "events_a_second": deliveries.events / seconds,
        "to_last_ms": percentiles(deliveries.to_last, 0.001),
        "to_first_ms": percentiles(deliveries.to_first, 0.001),
        "to_response_ms": percentiles(
            (took for took, status in zip(outcome.pushes.times, outcome.pushes.statuses, strict=True) if status), 0.001
        ),
        **deliveries.fields(),
        **faults,
        "strays": held.strays,
        "clean": not any(bad),
        "unsent": outcome.unsent,
        "held": held.devices,
        "drops": dict(held.drops),
        "errors": dict(outcome.errors),
        "cpu_a_million": cpu_a_million(usage, deliveries.delivered),
        "usage": usage.fields(deliveries.delivered),
        "limit": usage.limit(),
    }


def _wait_for_arrivals(subscribers: Subscribers, before: int, expected: int, grace: float, progress: Progress) -> None:
    """Until all is there that was accepted, or nothing has come for the time of grace."""
    progress.step("waiting for the last to arrive", expected)
    last, since = -1, time.monotonic()
    while (now := subscribers.arrived() - before) < expected and not subscribers.processes.interrupt.requested:
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > grace:
            break
        subscribers.processes.keep(subscribers.processes.receive(LOOK_SECONDS))
        progress.update(now)


def clean(run: dict[str, Any]) -> bool:
    """Whether a run, as JSON has it, delivered all that was sent, as it should, and lost nobody."""
    counts = (run["refused"], run["unanswered"], run["undelivered"])
    return bool(run["clean"] and run["delivered"] and not any(counts) and not run["drops"])


def cpu_a_million(usage: Usage, deliveries: int) -> dict[str, float | None]:
    """CPU seconds of a million deliveries: of each group of processes, of the server's and the load's together, and of
    all."""
    groups: dict[str, float] = {}
    for use in usage.uses:
        groups[use.group] = groups.get(use.group, 0.0) + use.cpu
    server = sum(cpu for group, cpu in groups.items() if not group.startswith("load"))
    sums = groups | {"server": server, "load": sum(groups.values()) - server, "all": sum(groups.values())}
    return {group: cpu / deliveries * 1e6 if deliveries else None for group, cpu in sums.items()}
