"""`farm bench push` and `connect --push` with WebPush, alone and beside SimplePush."""

from pathlib import Path

import pytest
from support.bench import after_warm_up, balanced, connect_to, farm_bench, push_to, push_with
from support.misbehaving import Rules, every, misbehaving

from bench.load.protocols.webpush import DIALECT as WEBPUSH
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.load import Load


def test_webpush_to_devices_that_are_there_and_away(tmp_path: Path) -> None:
    mix = ("--dialect", "webpush", "--channels", "2", "--online", "0.8", "--rate", "400", "--pushers", "2")
    body = farm_bench("push", "--devices", "200", "--seconds", "1.5", *mix, file=tmp_path / "push.json")
    (run,) = body["runs"]
    assert body["dialect"] == body["options"]["dialect"] == "webpush" and body["payload"] == 1024
    assert run["clean"] and balanced(run) and run["wrong_data"] == run["superseded"] == 0
    assert run["statuses"] == {"201": run["pushes"]} and run["pushes"] + run["unsent"] == 600
    assert run["delivered"] > 0 and run["stored"] > 0
    away = body["away"]
    assert away["clean"] and away["devices"] == 40 and away["back"] == away["sample"] > 0
    assert away["stored"] == away["expected"] == away["arrived"] == run["stored"]


def test_webpush_messages_that_a_farm_refuses(tmp_path: Path) -> None:
    arguments = ("push", "--dialect", "webpush", "--devices", "20", "--seconds", "0.3", "--payload", "6000")
    (run,) = farm_bench(*arguments, file=tmp_path / "push.json", code=1)["runs"]
    assert run["statuses"].keys() <= {"413", "0"} and run["refused"] > 0  # it may close before it has read all
    assert run["delivered"] == 0 and run["lost"] == 0


def test_webpush_devices_that_are_held_and_pushed_to(tmp_path: Path) -> None:
    more = ("--channels", "2", "--ping", "0.5", "--hold", "1.5", "--processes", "2")
    pushes = ("--push", "300", "--push-rate", "1000", "--set", "webpush.min_ping_interval=0")
    arguments = ("connect", "--dialect", "webpush", "--devices", "100", "--no-baseline")
    body = farm_bench(*arguments, *more, *pushes, file=tmp_path / "connect.json")
    done = body["connect"]
    assert body["dialect"] == "webpush" and done["setup"]["ready"] == done["held"] == 100 and not done["drops"]
    assert done["pings"]["answered"] > 0 and done["pings"]["overdue"] == 0
    run = done["push"]
    assert run["pushes"] == run["delivered"] == 300 and run["clean"] and run["unsent"] == 0


def test_webpush_devices_that_ping_too_often_are_closed(tmp_path: Path) -> None:
    arguments = ("connect", "--dialect", "webpush", "--devices", "20", "--no-baseline", "--ping", "0.3", "--hold", "2")
    done = farm_bench(*arguments, "--push", "100", file=tmp_path / "connect.json", code=1)["connect"]
    assert sum(done["drops"].values()) == 20 and done["held"] == 0
    assert done["push"]["statuses"] == {"201": 100}
    assert done["push"]["lost"] == done["push"]["superseded"] == 0 and done["push"]["undelivered"] == 100


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
