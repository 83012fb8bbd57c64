"""What the bench reports of pushes to servers that misbehave in known ways."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bench import push_to, push_with
from support.common import deaf_port
from support.misbehaving import Rules, every, misbehaving

from bench.cli import main
from bench.runs.app_servers import PushPlan


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


def test_a_refused_push_is_not_stored() -> None:
    with misbehaving(Rules(push=every(2, "refuse"))) as server:
        body = push_with(server, PushPlan(connections=4, seconds=0, count=200, online=0.5, grace=1))
    (run,) = body["runs"]
    assert run["refused"] == 100 and run["clean"]
    assert run["sent"] == run["delivered"] + run["stored"] + run["superseded"] + run["refused"]
    assert body["away"]["clean"] and body["away"]["expected"] == run["stored"]


@pytest.mark.parametrize(
    ("rules", "arguments"),
    [
        (Rules(push=every(10, "lose")), ["push", "--seconds", "0.3", "--grace", "0.1"]),
        (Rules(push=every(10, "wrong data")), ["push", "--seconds", "0.3", "--payload", "9"]),
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
