"""The part of `farm bench compare` about events that are stored: a farm, in each dialect and mode that replays, and
peers."""

import io
from typing import Any

import pytest
from rich.console import Console
from support.peers import installed, tools

from bench import peers
from bench.interrupt import Interrupt
from bench.load.protocols import FAN_OUTS
from bench.progress import Progress
from bench.runs import compare_replays
from bench.runs.compare_figures import clean
from bench.runs.contestants import Contestant
from bench.views.compare import tables

pytestmark = pytest.mark.measured

SUBSCRIBERS = 30
STORING = [name for name, peer in peers.PEERS.items() if peer.storing() is not None]
WAYS = [f"{one.title}, {mode}" for one in FAN_OUTS.values() if one.replays for mode in one.modes]


def replays_of(contestant: Contestant) -> dict[str, dict[str, Any]]:
    plan = compare_replays.Plan(SUBSCRIBERS, messages=5, connections=8, grace=60)
    return compare_replays.run(contestant, plan, tools(), Interrupt(), Progress(Console(file=io.StringIO())))


def check(found: dict[str, Any]) -> None:
    assert found["clean"] and found["held"] == found["back"] == SUBSCRIBERS == found["setup"]["ready"], found
    assert found["delivered"] == found["expected"] == SUBSCRIBERS * 5 and not found["live_lost"]
    assert found["cpu_a_million"] > 0 and found["seconds"] > 0 and found["stored_a_second"] > 0


def test_a_farm_replays_in_each_way() -> None:
    contestant = Contestant("farm", "farm", SUBSCRIBERS, store="memory")
    found = replays_of(contestant)
    assert list(found) == WAYS
    for one in found.values():
        check(one)


@pytest.mark.parametrize("name", STORING)
def test_a_peer_replays(name: str) -> None:
    (found,) = replays_of(Contestant(name, name, SUBSCRIBERS, installed(name))).values()
    check(found)


def test_servers_that_do_not_store_are_not_asked() -> None:
    for name, peer in peers.PEERS.items():
        assert name in STORING or replays_of(Contestant(name, name, SUBSCRIBERS, peer)) == {}


def round_with(**changed: Any) -> dict[str, Any]:
    one = {"seconds": 2.0, "stored_a_second": 900.0, "deliveries_a_second": 50.0, "cpu_a_million": 7.0, "lost": 0}
    one |= {"duplicates": 0, "stale": 0, "live_lost": 0, "held": 10, "clean": True, "setup": {"wanted": 10}}
    good: dict[str, Any] = {"setup": {"ready": 10, "failures": {}}, "setup_usage": {"cores_with_others": 0.1}}
    push = {"clean": True, "delivered": 1, "drops": {}, "lost": 0, "limit": "", "usage": {"cores_with_others": 0.1}}
    return good | {"setup_limit": "", "push": push, "replays": {"by pigeon": one | changed}}


def test_the_table_has_medians_and_all_faults() -> None:
    rounds = [round_with(), round_with(seconds=4.0, lost=1, stale=2), round_with(seconds=3.0, duplicates=1)]
    names = ("missing", "error", "note", "hint", "version", "processes", "set_up", "push", "durability")
    figures = dict.fromkeys(
        ("ready", "setup_rate", "setup_p50_ms", "setup_p99_ms", "setup_cpu_a_1000", "setup_cores", "memory_base"), 1.0
    )
    figures |= {"memory_a_connection": 1.0, "push_rate": None}
    server = {**dict.fromkeys(names, ""), "title": "Dovecote", "devices": 10, "rounds": rounds, "median": figures}
    body = {"servers": [server | {"ratio": {}}], "options": {"messages": 20, "repeat": 3}}
    (table,) = (one for one in tables(body) if one.title.startswith("Storing events, and replaying 20"))
    assert table.rows == [["Dovecote, by pigeon", "10", "900", "3.00 s", "50", "7.00", "1", "3"]]


def test_what_was_lost_is_no_clean_result() -> None:
    for changed, good in (({}, True), ({"clean": False}, False), ({"held": 9}, False)):
        assert clean({"devices": 10, "rounds": [round_with(**changed)]}) is good
