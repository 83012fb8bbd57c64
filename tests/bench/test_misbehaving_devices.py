"""What the bench reports of devices of servers that misbehave in known ways, and where they connect from."""

import pytest
from support.bench import after_warm_up, connect_to, quiet
from support.common import deaf_port
from support.misbehaving import FRAME_FAULTS, OPENING_FAULTS, Rules, every, misbehaving

from bench.errors import BenchError
from bench.farm_process import attach
from bench.interrupt import Interrupt
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers
from bench.target import Target


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
        measured = connect_to(server, Load(10, endpoints_every=1), plan=PushPlan(seconds=60, count=100, grace=2))
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
