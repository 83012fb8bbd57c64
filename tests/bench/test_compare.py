"""`farm bench compare`: its figures, arguments, tables and charts."""

import copy
import itertools
from collections import Counter
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.machine.usage import Usage, Use
from bench.peers.base import Tools
from bench.progress import Progress
from bench.runs.collected import Setup
from bench.runs.compare_figures import FIGURES, clean, fanout_figures, figures, medians, ratios, summary
from bench.runs.contestants import counted, find_all
from bench.runs.load import most_a_process
from bench.views import compare as compare_view
from bench.views.compare import charts, tables, times

pytestmark = pytest.mark.measured


def bench(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["compare", *arguments])
    return done.exit_code, done.output


def recorded() -> dict[str, Any]:
    """A document as a run leaves it, with a peer that is not there and one that lost a push."""
    base = {
        "ready": 10.0,
        "memory_base": 1 << 20,
        "memory_a_connection": 512.0,
        "setup_rate": 1000.0,
        "setup_p50_ms": 1.0,
        "setup_p99_ms": 2.0,
        "setup_cpu_a_1000": 0.05,
        "setup_cores": 0.5,
        "push_rate": 2000.0,
        "push_p50_ms": 3.0,
        "push_p99_ms": 4.0,
        "push_cpu_a_1000": 0.04,
        "push_cores": 0.75,
    }
    other = base | {"memory_a_connection": 20_480.0, "setup_rate": 250.0}
    round_: dict[str, Any] = {
        "setup": {"ready": 10, "failures": {}},
        "setup_limit": "the server",
        "setup_usage": {"cores_with_others": 0.25},
        "push": {
            "clean": True,
            "delivered": 9,
            "drops": {},
            "lost": 0,
            "limit": "none",
            "usage": {"cores_with_others": 0.5},
        },
    }
    bad = copy.deepcopy(round_)
    bad["setup"] = {"ready": 9, "failures": {"upgrade: HTTP 503": 1}}
    bad["push"] |= {"clean": False, "delivered": 8, "drops": {"ECONNRESET": 2}, "lost": 1}
    facts: dict[str, Any] = {
        "missing": "",
        "error": "",
        "note": "",
        "hint": "",
        "version": "1",
        "processes": "p",
        "set_up": "s",
    }
    facts |= {"push": "u", "durability": "d", "devices": 10}
    servers: list[dict[str, Any]] = [
        {**facts, "name": "farm", "title": "farm", "rounds": [round_], "median": base, "ratio": ratios(base, base)},
        {**facts, "name": "a", "title": "A", "rounds": [bad], "median": other, "ratio": ratios(other, base)},
        {**facts, "name": "b", "title": "B", "rounds": [], "median": {}, "ratio": {}},
    ]
    servers[1]["note"] = "fewer devices"
    servers[2] |= {"missing": "no b in PATH", "hint": "apt-get install b"}
    return {"servers": servers, "reference": "farm", "options": {"repeat": 3, "connections": 64}}


def test_medians_ratios_and_words() -> None:
    assert medians([{"a": 1.0, "b": None}, {"a": 5.0, "b": 2.0}, {"a": 2.0, "b": None}]) == {"a": 2.0, "b": 2.0}
    assert medians([{"a": None}]) == {"a": None}
    assert medians([]) == {}
    mine = {"memory_a_connection": 4096.0, "setup_rate": 100.0, "push_rate": None, "push_p50_ms": 1.0}
    reference = {"memory_a_connection": 512.0, "setup_rate": 400.0, "push_rate": 5.0, "push_p50_ms": 0.0}
    found = ratios(mine, reference)
    assert (found["memory_a_connection"], found["setup_rate"]) == (8.0, 0.25)
    assert (found["push_rate"], found["push_p50_ms"], found["push_p99_ms"]) == (None, None, None)
    assert [times(value) for value in (None, 0.256, 12.34, 1234.5)] == ["-", "0.26 x", "12.3 x", "1,234 x"]
    assert (counted(1, "worker"), counted(2, "worker")) == ("1 worker", "2 workers")


def test_figures_of_a_round() -> None:
    setup = Setup(100, ready=100, started=0.0)
    setup.completions.extend([1.0, 2.0])
    setup.durations.extend([0.010, 0.030])
    usage = Usage(4.0, [Use("server", 1, 1.5, 0, 0), Use("server", 2, 0.5, 0, 0), Use("load devices", 3, 9, 0, 0)], 1.0)
    pushed = {
        "delivered": 10,
        "pushes": 10,
        "seconds": 2.0,
        "notifications_a_second": 5.0,
        "to_frame_ms": {"p50": 1.0, "p99": 3.0},
        "usage": {"groups": {"router": {"cpu_seconds": 0.25}, "load pushers": {"cpu_seconds": 7.0}}},
    }
    found = figures(setup, usage, 1000, 3000, pushed)
    assert found["memory_a_connection"] == 20
    assert found["setup_rate"] == 1.0
    assert (found["setup_cpu_a_1000"], found["setup_cores"]) == (20.0, 0.5)
    assert (found["push_rate"], found["push_p99_ms"]) == (5.0, 3.0)
    assert (found["push_cpu_a_1000"], found["push_cores"]) == (25.0, 0.125)
    assert figures(setup, usage, 1000, 3000, None)["push_rate"] is None
    assert figures(Setup(100), usage, 1000, 3000, pushed | {"delivered": 0})["memory_a_connection"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--peer", "nosuch"), 2, "nosuch"),
        (("--python", "/no/such/python"), 2, "/no/such/python"),
        (("--repeat", "0"), 2, "--repeat"),
        (("--devices", "19999", "--peer", "ws"), 1, "give --workers 2"),
        (("--help",), 0, "farm bench compare --repeat 3"),
    ],
)
def test_arguments_and_exit_codes(arguments: tuple[str, ...], code: int, text: str) -> None:
    found, output = bench(*arguments)
    assert (found, text in output) == (code, True), output


def test_a_peer_of_one_process_gets_as_many_devices_as_that_holds() -> None:
    devices = 2 * most_a_process()
    found = find_all(("trio-websocket", "nchan"), devices, Tools(workers=2), most_a_process(), Progress())
    by_name = {contestant.name: contestant for contestant in found}
    assert by_name["farm"].devices == by_name["nchan"].devices == devices
    assert by_name["trio-websocket"].devices == most_a_process()
    assert f"{most_a_process():,} devices" in by_name["trio-websocket"].note


def test_a_result_keeps_of_a_round_what_is_shown() -> None:
    body = recorded()
    for server in body["servers"]:
        for round_ in server["rounds"]:
            round_["setup"]["wanted"] = 10
            round_["setup"]["time_ms"] = {"p50": 1.0}
            for usage in (round_["setup_usage"], round_["push"]["usage"]):
                usage |= {"machine_busy": 0.9, "groups": {"server": {"cpu_seconds": 1.5, "processes": 1}}}
            round_["push"]["to_frame_ms"] = {"p50": 1.0}
    kept = copy.deepcopy(body)
    for server in kept["servers"]:
        server["rounds"] = [summary(round_) for round_ in server["rounds"]]
    assert tables(kept) == tables(body) and charts(kept) == charts(body)
    assert [clean(server) for server in kept["servers"]] == [clean(server) for server in body["servers"]]
    push = kept["servers"][0]["rounds"][0]["push"]
    assert push["usage"]["groups"] == {"server": {"cpu_seconds": 1.5}} and "to_frame_ms" not in push


def test_tables_of_a_recorded_run() -> None:
    body = recorded()
    shown = {table.title: table for table in tables(body)}
    relation = shown["As a multiple of farm"]
    assert relation.rows[0][1:4] == ["1.00 x", "1.00 x", "1.00 x"]
    assert relation.rows[1][1:3] == ["40.0 x", "0.25 x"]
    assert relation.rows[2][:3] == ["B", "not installed:", "apt-get install b"]
    assert any("0.2 to 0.5 cores" in note for note in relation.notes)
    held = shown["Setting up devices and holding them"]
    assert held.rows[1][:3] == ["A", "10 of 10", "250"]
    assert held.rows[2][:2] == ["B", "not installed"]
    assert any("Medians of 3 rounds" in note for note in held.notes)
    assert shown["Pushing to one random device at a time"].rows[1][-2:] == ["1", "d"]
    assert "A: fewer devices." in shown["What was measured"].notes
    (failure,) = shown["Failures"].rows
    assert failure[:4] == ["A", "1 x upgrade: HTTP 503", "2 x ECONNRESET", "1 x lost"]
    assert [clean(server) for server in body["servers"]] == [True, False, False]


def test_charts_of_a_recorded_run() -> None:
    body = recorded()
    memory, *others = charts(body)
    assert memory.kind == "bar"
    assert list(memory.series[0].x) == ["farm", "A"]
    assert list(memory.series[0].y) == [0.5, 20.0]
    assert len(others) == 4
    for server in body["servers"]:
        server["median"] |= {name: None for name in server["median"] if name.startswith("push")}
    assert len(charts(body)) == 3
    assert tables(body)


def test_the_table_of_fan_outs() -> None:
    def server(title: str, rounds: list[dict[str, Any]], fans_out: bool, missing: str = "") -> dict[str, Any]:
        rate = {"fanout_rate": 1000.0, "fanout_p50_ms": 1.0, "fanout_p99_ms": 2.0, "fanout_cpu_a_million": 7.5}
        return {"title": title, "rounds": rounds, "median": rate, "fans_out": fans_out, "missing": missing, "error": ""}

    run = {"held": 30, "lost": 2}
    servers = [
        server("farm", [{"fanout": {"run": run}}, {"fanout": {"run": run}}], True),
        server("ws", [{}], False),
        server("nats", [], True, "not here"),
    ]
    (table,) = compare_view._fan_outs(servers)
    assert [row[:2] for row in table.rows] == [
        ["farm", "30"],
        ["ws", "one push, one device"],
        ["nats", "not installed"],
    ]
    assert table.rows[0][2:] == ["1,000", "1.00 ms", "2.00 ms", "7.50", "4"]
    assert compare_view._fan_outs(servers[1:]) == []
    assert Counter(FIGURES)["fanout_cpu_a_million"] == 1
    nothing = fanout_figures({"run": None})
    assert set(nothing.values()) == {None} and set(itertools.chain(nothing)) <= set(FIGURES)
