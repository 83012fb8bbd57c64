"""The load generator against servers that misbehave in known ways: it reports just what they did."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from support.common import deaf_port
from support.misbehaving import FRAME_FAULTS, OPENING_FAULTS, Misbehaving, Rules, every, misbehaving

from bench.cli import main
from bench.errors import BenchError
from bench.farm_process import attach
from bench.interrupt import Interrupt
from bench.load.dialect import Dialect
from bench.load.protocols.simplepush import DIALECT as SIMPLEPUSH
from bench.load.protocols.webpush import DIALECT as WEBPUSH
from bench.progress import Progress
from bench.runs import connect as connecting
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers
from bench.target import Target


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def push_with(
    server: Misbehaving, plan: PushPlan, devices: int = 20, dialect: Dialect = SIMPLEPUSH, **load: Any
) -> dict[str, Any]:
    """The document of `push`."""
    payload = max(plan.payload, dialect.least)
    spoken, plan = pushing.speaking(dialect, Load(devices, endpoints_every=1, **load), plan, payload)
    return pushing.run(
        Target(url=server.url, admin=""),
        spoken,
        plan,
        interrupt=Interrupt(),
        progress=quiet(),
    )


def push_to(
    server: Misbehaving,
    *,
    grace: float = 0.2,
    payload: int = 0,
    rate: float = 0.0,
    dialect: Dialect = SIMPLEPUSH,
) -> dict[str, Any]:
    """One run of pushes."""
    plan = PushPlan(connections=4, seconds=0.3, grace=grace, payload=payload, rate=rate)
    (run,) = push_with(server, plan, dialect=dialect)["runs"]
    assert run["pushes"] == run["sent"] == server.pushes
    parts = ("delivered", "stored", "superseded", "undelivered", "refused", "unanswered", "lost")
    assert run["sent"] == sum(run[part] for part in parts)
    assert isinstance(run, dict)
    return run


def connect_to(server: Misbehaving, load: Load, *, hold: float = 0.1, plan: PushPlan | None = None) -> dict[str, Any]:
    """What `connect` measured."""
    body = connecting.run(
        Target(url=server.url, admin=""),
        load,
        hold=hold,
        baseline=False,
        interrupt=Interrupt(),
        progress=quiet(),
        plan=plan,
    )
    measured = body["connect"]
    assert isinstance(measured, dict)
    return measured


def after_warm_up(devices: int, faults: list[str]) -> Callable[[int], str]:
    """The faults in turn, for the devices that come after the warm-up of `connect`."""
    return lambda number: "" if number < devices else faults[number % len(faults)]


# ---- pushes


@pytest.mark.parametrize(("dialect", "status"), [(SIMPLEPUSH, 200), (WEBPUSH, 201)])
def test_a_good_server_gets_a_clean_report(dialect: Dialect, status: int) -> None:
    with misbehaving(Rules()) as server:
        run = push_to(server, grace=5, dialect=dialect)
    assert not server.faults
    assert run["clean"] and run["delivered"] == run["pushes"] == sum(server.acks.values()) > 0
    assert run["statuses"] == {status: run["pushes"]}
    assert not run["errors"] and not run["drops"] and run["held"] == 20
    assert max(server.acks.values()) == 1
    assert run["to_frame_ms"]["p50"] <= run["to_frame_ms"]["max"]


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        ("lose", {"lost": 1}),
        ("duplicate", {"duplicates": 1}),
        ("wrong version", {"unexpected": 1, "lost": 1}),
        ("wrong channel", {"strays": 1, "lost": 1}),
        ("wrong data", {"wrong_data": 1}),
        ("short data", {"wrong_data": 1}),
        ("no data", {"wrong_data": 1}),
        ("withhold", {}),
        ("refuse", {}),
        ("fail", {}),
        ("forget the token", {}),
        ("hang up", {}),
        ("nonsense", {}),
        ("answer twice", {}),
        ("piecemeal", {}),
        ("last", {}),
    ],
)
def test_each_fault_is_reported_and_nothing_else(fault: str, counts: dict[str, int]) -> None:
    with misbehaving(Rules(push=every(10, fault))) as server:
        run = push_to(server, payload=50)
    times = server.faults[fault]
    assert times > 0
    names = ("lost", "duplicates", "unexpected", "strays", "wrong_data", "refused_but_arrived")
    found = {name: run[name] for name in names}
    if fault in ("nonsense", "answer twice"):  # delivered all the same: only the answer was bad
        assert found.pop("refused_but_arrived") == times
    if fault == "withhold":  # the last ones may have had no later push that released them
        assert found.pop("lost") == len(server.withheld)
        found["lost"] = 0
    assert found == {name: counts.get(name, 0) * times for name in found}
    assert run["clean"] == (not counts and not server.withheld)
    statuses = {"refuse": 503, "fail": 500, "forget the token": 404, "hang up": 0, "nonsense": 0, "answer twice": 0}
    expected = {statuses[fault]: times} if fault in statuses else {}
    assert run["statuses"] == {200: run["pushes"] - sum(expected.values()), **expected}
    broken = {"hang up": "closed by the server", "nonsense": "not HTTP", "answer twice": "more than one answer"}
    assert run["errors"] == ({broken[fault]: times} if fault in broken else {})


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        ("lose", {"lost": 1}),
        ("duplicate", {"duplicates": 1}),
        ("wrong version", {"unexpected": 1, "lost": 1}),
        ("no data", {"unexpected": 1, "lost": 1}),  # then nobody can tell which push it was
        ("wrong channel", {"strays": 1, "lost": 1}),
        ("wrong data", {"wrong_data": 1}),
        ("short data", {"wrong_data": 1}),
        ("wrong encoding", {"wrong_data": 1}),
        ("refuse", {}),
        ("hang up", {}),
        ("piecemeal", {}),
        ("last", {}),
    ],
)
def test_each_fault_of_webpush_is_reported_and_nothing_else(fault: str, counts: dict[str, int]) -> None:
    with misbehaving(Rules(push=every(10, fault))) as server:
        run = push_to(server, payload=1024, dialect=WEBPUSH)
    times = server.faults.pop(fault)
    assert times > 0 and not server.faults
    names = ("lost", "duplicates", "unexpected", "strays", "wrong_data", "refused_but_arrived", "superseded")
    assert {name: run[name] for name in names} == {name: counts.get(name, 0) * times for name in names}
    assert run["clean"] == (not counts)
    statuses = {"refuse": 503, "hang up": 0}
    expected = {statuses[fault]: times} if fault in statuses else {}
    assert run["statuses"] == expected | {201: run["pushes"] - sum(expected.values())}


def test_a_server_that_answers_and_never_delivers() -> None:
    with misbehaving(Rules(push=lambda number: "lose")) as server:
        run = push_to(server)
    assert run["lost"] == run["pushes"] == server.pushes > 0
    assert run["delivered"] == 0 and not run["clean"] and not run["to_frame_ms"]
    assert run["statuses"] == {200: server.pushes}


@pytest.mark.parametrize("rate", [0.0, 100.0])
def test_latency_is_at_least_the_delay(rate: float) -> None:
    with misbehaving(Rules(push=lambda number: "delay", delay=0.25)) as server:
        run = push_to(server, grace=10, rate=rate)
    assert run["delivered"] == run["pushes"] == server.faults["delay"] > 0 and run["clean"]
    assert 250 <= run["to_frame_ms"]["p50"] <= run["to_frame_ms"]["max"]
    assert run["to_response_ms"]["p50"] < run["to_frame_ms"]["p50"]


def test_only_the_delayed_ones_are_late() -> None:
    with misbehaving(Rules(push=every(4, "delay"), delay=0.4)) as server:
        run = push_to(server, grace=10)
    assert run["delivered"] == run["pushes"] and run["clean"]
    assert run["to_frame_ms"]["p99"] >= 400 and run["to_frame_ms"]["p50"] < run["to_frame_ms"]["p99"]


def test_a_push_that_is_never_answered() -> None:
    def the_third(number: int) -> str:
        return "never answer" if number == 2 else ""

    with misbehaving(Rules(push=the_third)) as server:
        plan = PushPlan(connections=1, seconds=0, count=5, grace=5, answer_timeout=2.0)
        (run,) = push_with(server, plan)["runs"]
    assert run["statuses"] == {0: 1, 200: 4} and run["unanswered"] == 1
    assert run["errors"] == {"no answer in time": 1}
    assert run["refused_but_arrived"] == 1  # it was delivered, only nobody said so
    assert run["lost"] == 0 and run["delivered"] == 4


def test_a_router_that_is_not_there() -> None:
    with misbehaving(Rules()) as server, deaf_port() as port:
        plan = PushPlan(connections=4, seconds=60, endpoint=f"http://127.0.0.1:{port}")
        (run,) = push_with(server, plan, devices=5)["runs"]
    assert run["statuses"].keys() <= {0} and run["delivered"] == 0
    assert run["errors"].keys() == {"ECONNREFUSED"}


def test_a_device_that_is_cut_off_is_no_loss() -> None:
    def cut_the_tenth(number: int) -> str:
        return "cut" if number == 10 else ""

    with misbehaving(Rules(push=cut_the_tenth)) as server:
        run = push_to(server)
    assert run["held"] == 19 and run["drops"] == {"closed with 1001": 1}
    assert run["lost"] == 0 and run["undelivered"] > 0


# ---- rates and counts


@pytest.mark.parametrize("processes", [1, 3])
def test_a_rate_is_even_steps_over_all_processes(processes: int) -> None:
    with misbehaving(Rules()) as server:
        plan = PushPlan(connections=6, processes=processes, seconds=0.3, rate=200, grace=5)
        (run,) = push_with(server, plan)["runs"]
    assert run["mode"] == "open loop" and run["clean"]
    assert run["pushes"] + run["unsent"] == 60
    first = min(server.due)
    steps = sorted((due - first + 2) // 5000 for due in server.due)
    assert len(set(steps)) == len(steps)  # no two pushes share a step
    assert all((due - first + 2) % 5000 <= 4 for due in server.due)


def test_latency_counts_from_when_a_push_was_due() -> None:
    """One connection whose answers take 0.1 s, and a push due every 0.02 s: each waits longer than the one before."""
    with misbehaving(Rules(push=lambda number: "slow answer", delay=0.1)) as server:
        (run,) = push_with(server, PushPlan(connections=1, seconds=0.5, rate=50, grace=5))["runs"]
    assert run["pushes"] + run["unsent"] == 25 and run["pushes"] < 25
    last = run["pushes"] - 1
    assert run["to_response_ms"]["max"] >= 100 * (last + 1) - 20 * last - 1
    assert run["to_frame_ms"]["max"] >= (100 - 20) * last - 1
    assert run["clean"]


@pytest.mark.parametrize(("count", "rate"), [(50, 0.0), (50, 500.0), (2, 0.0), (2, 100.0)])
def test_a_count_of_pushes(count: int, rate: float) -> None:
    with misbehaving(Rules()) as server:
        plan = PushPlan(connections=6, processes=3, seconds=0, rate=rate, count=count, grace=5)
        (run,) = push_with(server, plan)["runs"]
    assert run["pushes"] == run["delivered"] == server.pushes == count
    assert run["unsent"] == 0 and run["clean"]


def test_a_count_that_is_not_reached_in_time() -> None:
    with misbehaving(Rules(push=lambda number: "slow answer", delay=0.1)) as server:
        (run,) = push_with(server, PushPlan(connections=1, seconds=0.3, count=1000, grace=5))["runs"]
    assert 0 < run["pushes"] < 1000 and run["unsent"] == 1000 - run["pushes"]


# ---- devices that were away


@pytest.mark.parametrize(
    ("fault", "found"),
    [("", {}), ("forget", {"missing": 1}), ("older", {"unexpected": 1, "missing": 1}), ("twice", {"duplicates": 1})],
)
def test_devices_that_were_away_get_what_was_stored(fault: str, found: dict[str, int]) -> None:
    with misbehaving(Rules(back=every(4, fault))) as server:
        body = push_with(server, PushPlan(connections=4, seconds=0, count=400, online=0.6, grace=1))
    (run,) = body["runs"]
    away = body["away"]
    times = server.faults[fault] if fault else 0
    assert run["clean"] and run["sent"] == 400
    assert run["sent"] == run["delivered"] + run["stored"] + run["superseded"] + run["refused"]
    assert run["statuses"] == {200: run["delivered"], 202: run["stored"] + run["superseded"]}
    assert away["devices"] == 8 and away["back"] == away["sample"] == server.returns == 8
    assert away["expected"] == run["stored"] == 8
    expected = dict.fromkeys(("missing", "older", "duplicates", "unexpected", "strays"), 0)
    assert {name: away[name] for name in expected} == expected | {name: n * times for name, n in found.items()}
    assert away["arrived"] == 8 - away["missing"]
    assert away["clean"] == (not fault)


@pytest.mark.parametrize("fault", ["", "forget", "twice"])
def test_webpush_devices_that_were_away_get_all_that_was_stored(fault: str) -> None:
    with misbehaving(Rules(back=every(4, fault))) as server:
        body = push_with(server, PushPlan(connections=4, seconds=0, count=400, online=0.6, grace=1), dialect=WEBPUSH)
        left = sum(map(len, server.stored.values()))
    (run,) = body["runs"]
    away = body["away"]
    assert run["clean"] and run["superseded"] == 0 and run["statuses"] == {201: 400}
    assert run["sent"] == 400 == run["delivered"] + run["stored"]
    assert away["devices"] == 8 and away["back"] == away["sample"] == server.returns == 8
    assert away["expected"] == away["stored"] == run["stored"] == away["arrived"] + away["missing"]
    assert (away["missing"] > 0) == (fault == "forget") and (away["duplicates"] > 0) == (fault == "twice")
    assert away["older"] == away["unexpected"] == away["strays"] == 0
    assert left == away["missing"]  # all else was acknowledged
    assert away["clean"] == (not fault)


def test_a_refused_push_is_not_stored() -> None:
    with misbehaving(Rules(push=every(2, "refuse"))) as server:
        body = push_with(server, PushPlan(connections=4, seconds=0, count=200, online=0.5, grace=1))
    (run,) = body["runs"]
    assert run["refused"] == 100 and run["clean"]
    assert run["sent"] == run["delivered"] + run["stored"] + run["superseded"] + run["refused"]
    assert body["away"]["clean"] and body["away"]["expected"] == run["stored"]


# ---- devices


def test_devices_that_fail_are_counted_by_kind() -> None:
    kinds = {
        "refuse": "upgrade: HTTP 503",
        "garbage": "upgrade: not HTTP",
        "wrong accept": "upgrade: wrong accept key",
        "stall upgrade": "upgrade: no answer in time",
        "stall in upgrade": "upgrade: no answer in time",
        "hello": "hello: closed without a close frame",
        "silent hello": "hello: no answer in time",
        "refuse hello": "hello: status 503",
        "register": "register: closed without a close frame",
        "silent register": "register: no answer in time",
        "refuse register": "register: status 503",
        "masked frame": "register: bad frame",
        "reserved bit": "register: bad frame",
        "loose continuation": "register: bad fragment",
        "not JSON": "register: not JSON",
    }
    assert kinds.keys() > OPENING_FAULTS.keys() | FRAME_FAULTS.keys()
    faults = list(kinds)
    devices = 2 * len(faults)
    with misbehaving(Rules(after_warm_up(devices, faults))) as server:
        measured = connect_to(server, Load(devices, timeout=1.5))
    assert server.faults == dict.fromkeys(faults, 2)
    setup = measured["setup"]
    assert setup["ready"] == measured["held"] == 0
    failures: dict[str, int] = {}
    for kind in kinds.values():
        failures[kind] = failures.get(kind, 0) + 2
    assert setup["failures"] == failures


def test_webpush_devices_that_fail_are_counted_by_kind() -> None:
    kinds = {
        "not WebPush": "hello: not WebPush",
        "refuse hello": "hello: status 503",
        "refuse register": "register: status 503",
        "silent register": "register: no answer in time",
        "not JSON": "register: not JSON",
    }
    faults = list(kinds)
    devices = 2 * len(faults)
    load, _ = pushing.speaking(WEBPUSH, Load(devices, timeout=1.5), PushPlan())
    with misbehaving(Rules(after_warm_up(devices, faults))) as server:
        measured = connect_to(server, load)
    assert server.faults == dict.fromkeys(faults, 2)
    assert measured["setup"]["failures"] == dict.fromkeys(kinds.values(), 2)


def test_devices_that_are_cut_off_while_they_are_held() -> None:
    faults = ["cut later", "reset later", "malformed later", "", ""]
    with misbehaving(Rules(after_warm_up(20, faults), hold=0.5)) as server:
        measured = connect_to(server, Load(20), hold=2.0)
    assert measured["setup"]["ready"] == 20 and not measured["setup"]["failures"]
    assert measured["held"] == 8
    assert measured["drops"] == {"closed with 1012": 4, "ECONNRESET": 4, "bad frame": 4}
    assert server.faults == dict.fromkeys(faults[:3], 4)


def test_pings_that_are_not_answered_are_overdue() -> None:
    with misbehaving(Rules(after_warm_up(10, ["silent ping", "", "", "", ""]))) as server:
        measured = connect_to(server, Load(10, ping=0.3, timeout=1.5), hold=3.0)
    pings = measured["pings"]
    assert measured["held"] == 10 and not measured["drops"]
    assert 0 < pings["answered"] <= server.pings
    assert 0 < pings["overdue"] <= server.faults["silent ping"]
    assert pings["sent"] == pings["answered"] + pings["overdue"] + pings["outstanding"]


def test_pings_of_a_good_server_are_all_answered() -> None:
    with misbehaving(Rules()) as server:
        measured = connect_to(server, Load(10, ping=0.3), hold=1.5)
    assert measured["pings"]["answered"] > 0 and measured["pings"]["overdue"] == 0


def test_pushes_while_all_are_held() -> None:
    with misbehaving(Rules(push=every(10, "lose"))) as server:
        measured = connect_to(server, Load(10, endpoints_every=1), plan=PushPlan(seconds=60, count=100, grace=0.2))
    run = measured["push"]
    assert run["pushes"] == server.pushes == 100
    assert run["lost"] == server.faults["lose"] == 10 and run["delivered"] == 90


def test_devices_come_from_several_addresses() -> None:
    with misbehaving(Rules()) as server, LoadProcesses() as processes:
        farm = attach(server.url, "")
        VirtualUsers.of(processes, Load(20, processes=2), farm, first=3_995).bring_up(quiet(), "setting up")
    assert server.sources == {"127.0.0.1": 5, "127.1.0.1": 15}


def test_devices_come_from_the_given_addresses() -> None:
    with misbehaving(Rules()) as server:
        measured = connect_to(server, Load(9, processes=2, sources=("127.0.0.7", "127.0.0.8", "127.0.0.9")))
    assert measured["setup"]["ready"] == 9
    assert server.sources == {"127.0.0.7": 6, "127.0.0.8": 6, "127.0.0.9": 6}  # with the warm-up


def test_a_source_that_is_not_ours() -> None:
    with misbehaving(Rules()) as server, pytest.raises(BenchError, match=r"--source 192\.0\.2\.1: "):
        connect_to(server, Load(5, sources=("192.0.2.1",)))


def test_a_port_where_nobody_listens() -> None:
    with deaf_port() as port, pytest.raises(BenchError, match="5 x upgrade: ECONNREFUSED"):
        target = Target(url=f"ws://127.0.0.1:{port}", admin="")
        pushing.run(target, Load(5, endpoints_every=1), PushPlan(), interrupt=Interrupt(), progress=quiet())


# ---- exit codes


@pytest.mark.parametrize(
    ("rules", "arguments"),
    [
        (Rules(push=every(10, "lose")), ["push", "--seconds", "0.3", "--grace", "0.1"]),
        (Rules(push=every(10, "wrong data")), ["push", "--seconds", "0.3", "--payload", "9"]),
        (Rules(push=every(10, "lose")), ["push", "--dialect", "webpush", "--seconds", "0.3", "--grace", "0.1"]),
        (
            Rules(device=lambda number: "refuse" if number == 12 else ""),
            ["push", "--dialect", "all", "--seconds", "0.3", "--grace", "0.1"],
        ),
        (Rules(back=lambda number: "forget"), ["push", "--seconds", "0.3", "--online", "0.5", "--grace", "0.3"]),
        (Rules(push=every(10, "lose")), ["connect", "--no-baseline", "--hold", "0", "--push", "50"]),
        (Rules(push=lambda number: "refuse"), ["connect", "--no-baseline", "--hold", "0", "--push", "50"]),
        (
            Rules(lambda number: "silent ping" if number >= 10 else ""),
            ["connect", "--no-baseline", "--hold", "2", "--ping", "0.3", "--timeout", "0.5"],
        ),
        (
            Rules(lambda number: "cut later" if number == 12 else "", hold=0.3),
            ["connect", "--no-baseline", "--hold", "1"],
        ),
    ],
)
def test_what_a_server_did_wrong_is_exit_code_1(rules: Rules, arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with misbehaving(rules) as server:
        common = ["--url", server.url, "--admin", "", "--devices", "10", "--json", str(file)]
        result = CliRunner().invoke(main, [*arguments, *common])
    assert result.exit_code == 1, result.output
    assert server.faults
    assert not json.loads(file.read_text())["interrupted"]  # it went to its end, and said so
