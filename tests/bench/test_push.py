"""`farm bench push` and `connect --push`: the account of a mixed load, and every option on a real farm."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import main
from bench.figures.dialects import CONNECT_FIGURES, PUSH_FIGURES, ratios
from bench.figures.evidence import evidence
from bench.figures.profiles import PROFILES
from bench.figures.results import shown
from bench.load.http_bytes import payload_of
from bench.load.protocols.simplepush import Batch, batch_request, head_of_batch, head_of_push, push_request
from bench.load.samples import (
    DATA_MISSING,
    DATA_RIGHT,
    DATA_WRONG,
    Arrivals,
    Pushes,
    account,
    account_returned,
    newest_accepted,
)
from bench.load.sockets import Address, source_of, sources_in
from bench.machine import machine_memory
from bench.machine.machine_memory import Cache, Reading, growth, parse_slabinfo, reading_of
from bench.machine.procfs import Kernel

# ---- bytes


@given(st.integers(0, 2**63 - 1), st.integers(1, 5000))
def test_the_data_of_a_push_is_its_versions_own(version: int, size: int) -> None:
    data = payload_of(version, size)
    assert len(data) == size and data == payload_of(version, size)
    if size > 20:
        assert data != payload_of(version + 1, size)
    request = push_request(b"/update/t", head_of_push("farm:8081"), version, size)
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert parse_qsl(body.decode()) == [("version", str(version)), ("data", data.decode())]
    assert json.loads(b'"%b"' % data).encode() == data


def test_a_batch_is_a_line_for_each_push_and_answered_so() -> None:
    paths = [b"/update/a-_b", b"/update/c"]
    head, _, body = batch_request(paths, head_of_batch("farm:8081"), [7, 9], 20).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/push HTTP/1.1\r\n") and b"\r\nContent-Length: %d" % len(body) in head
    assert [json.loads(line) for line in body.splitlines()] == [
        {"token": "a-_b", "version": 7, "data": payload_of(7, 20).decode()},
        {"token": "c", "version": 9, "data": payload_of(9, 20).decode()},
    ]
    assert json.loads(batch_request(paths[1:], b"", [9]).partition(b"\r\n\r\n")[2]) == {"token": "c", "version": 9}
    lines = b'{"status":200}\n{"status":503,"error":"{\\"status\\":200"}\n{"status":202}\n'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(lines), lines)
    assert Batch("farm").response(answer[:-1]) is None
    assert Batch("farm").response(answer) == (200, len(answer), False, (200, 503, 202))
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    assert Batch("farm").response(refused) == (413, len(refused), False, ())


# ---- accounts


def pushed(*rows: tuple[int, int, int]) -> Pushes:
    """Pushes as (channel, version, status)."""
    channels, versions, statuses = (
        array(code, column) for code, column in zip("IqH", zip(*rows, strict=True), strict=True)
    )
    return Pushes(channels, versions, statuses, array("I", [5] * len(rows)))


def arrived(*rows: tuple[int, int, int]) -> Arrivals:
    """Arrivals as (channel, version, DATA_...)."""
    result = Arrivals()
    for channel, version, data in rows:
        result.channels.append(channel)
        result.versions.append(version)
        result.times.append(version + 7)
        result.data.append(data)
    return result


def test_what_is_stored_for_devices_that_are_away() -> None:
    # two channels a device; devices 2 and 3 (channels 4 to 7) are away
    pushes = pushed((0, 10, 200), (5, 11, 202), (5, 12, 202), (5, 13, 503), (6, 14, 200), (7, 15, 0), (3, 16, 202))
    found = account(pushes, arrived((0, 10, DATA_RIGHT), (3, 16, DATA_MISSING)), channels=2, away=range(2, 4))
    assert (found.sent, found.delivered, found.stored, found.superseded) == (7, 2, 2, 1)
    assert (found.refused, found.unanswered, found.lost, found.undelivered) == (1, 1, 0, 0)
    assert found.clean


def test_a_device_that_is_gone_has_all_its_channels_gone() -> None:
    pushes = pushed((4, 10, 200), (5, 11, 200), (6, 12, 200))
    arrivals = arrived()
    arrivals.gone.append(2)
    found = account(pushes, arrivals, channels=2)
    assert (found.undelivered, found.lost) == (2, 1)


def test_data_that_is_wrong_or_not_there() -> None:
    pushes = pushed((0, 10, 200), (1, 11, 200), (2, 12, 202), (3, 13, 202), (4, 14, 200))
    arrivals = arrived(
        (0, 10, DATA_RIGHT), (1, 11, DATA_MISSING), (2, 12, DATA_MISSING), (3, 13, DATA_WRONG), (4, 14, DATA_WRONG)
    )
    found = account(pushes, arrivals)
    assert found.wrong_data == 3 and found.delivered == 5 and not found.clean


def test_what_devices_get_when_they_come_back() -> None:
    runs = [
        pushed((0, 10, 202), (1, 11, 202), (2, 12, 202), (9, 13, 202)),
        pushed((0, 20, 202), (1, 21, 0), (3, 22, 503), (2, 23, 202)),
    ]
    devices = frozenset(range(4))
    assert newest_accepted(runs, 1, devices) == {0: 20, 1: 11, 2: 23}

    def back(*arrivals: tuple[int, int]) -> dict[str, int]:
        got = arrived(*((channel, version, DATA_RIGHT) for channel, version in arrivals))
        returned = account_returned(runs, got, channels=1, devices=devices)
        fields = returned.fields()
        assert returned.clean == (fields == {**fields, "missing": 0, "older": 0, "duplicates": 0, "unexpected": 0})
        return {name: count for name, count in fields.items() if count}

    assert back((0, 20), (1, 11), (2, 23)) == {"expected": 3, "arrived": 3}
    # not answered, or refused, but stored all the same
    assert back((0, 20), (1, 21), (2, 23), (3, 22)) == {"expected": 3, "arrived": 3}
    assert back((0, 20), (1, 11)) == {"expected": 3, "arrived": 2, "missing": 1}
    assert back((0, 10), (1, 11), (2, 23)) == {"expected": 3, "arrived": 2, "missing": 1, "older": 1}
    assert back((0, 10), (0, 20), (1, 11), (2, 23)) == {"expected": 3, "arrived": 3, "older": 1}
    assert back((0, 20), (0, 20), (1, 11), (2, 23)) == {"expected": 3, "arrived": 3, "duplicates": 1}
    assert back((0, 20), (1, 11), (2, 23), (2, 99)) == {"expected": 3, "arrived": 3, "unexpected": 1}


def test_webpush_keeps_every_message() -> None:
    # devices 2 and 3 are away; 201 says only that a message was taken
    pushes = pushed((0, 10, 201), (0, 11, 201), (2, 12, 201), (2, 13, 201), (3, 14, 503), (1, 15, 201))
    arrivals = arrived((0, 11, DATA_RIGHT), (1, 15, DATA_MISSING))
    found = account(pushes, arrivals, away=range(2, 4), keeps_all=True)
    assert (found.sent, found.delivered, found.stored, found.superseded) == (6, 2, 2, 0)
    assert (found.lost, found.refused, found.wrong_data) == (1, 1, 1)
    devices = frozenset({2, 3})

    def back(*arrivals: tuple[int, int]) -> dict[str, int]:
        got = arrived(*((channel, version, DATA_RIGHT) for channel, version in arrivals))
        fields = account_returned([pushes], got, channels=1, devices=devices, keeps_all=True).fields()
        return {name: count for name, count in fields.items() if count}

    assert back((2, 12), (2, 13)) == back((2, 13), (2, 12)) == {"expected": 2, "arrived": 2}
    assert back((2, 13), (3, 14)) == {"expected": 2, "arrived": 1, "missing": 1}
    assert back((2, 12), (2, 13), (2, 12)) == {"expected": 2, "arrived": 2, "duplicates": 1}
    assert back((2, 12), (2, 13), (2, 99)) == {"expected": 2, "arrived": 2, "unexpected": 1}


def test_ratios_of_what_was_measured() -> None:
    def part(dialect: str, rate: float, frame: dict[str, float], cpu: float | None) -> dict[str, Any]:
        groups = {"router": {"cpu_seconds_a_1000": cpu}}
        run = {"notifications_a_second": rate, "to_frame_ms": frame, "usage": {"groups": groups}}
        return {"dialect": dialect, "runs": [run]}

    parts = [part("simplepush", 1000, {"p50": 2.0}, 0.5), part("webpush", 600, {"p50": 3.0}, None)]
    found = ratios(parts, PUSH_FIGURES)
    assert {key: value for key, value in found["webpush"].items() if value is not None} == {
        "notifications_a_second": 0.6,
        "to_frame_p50": 1.5,
    }
    assert ratios(parts[:1], PUSH_FIGURES) == {}
    empty = [{"dialect": "simplepush", "runs": []}, {"dialect": "webpush", "runs": []}]
    assert set(ratios(empty, PUSH_FIGURES)["webpush"].values()) == {None}
    memory = [
        {"dialect": dialect, "connect": {"user_memory": {"workers": {"a_connection": size}}}}
        for dialect, size in (("simplepush", 800), ("webpush", 400))
    ]
    assert ratios(memory, CONNECT_FIGURES)["webpush"]["workers_memory_a_device"] == 0.5
    memory[0]["connect"]["user_memory"]["workers"]["a_connection"] = -8  # type: ignore[index]  # shrank: no ratio
    assert ratios(memory, CONNECT_FIGURES)["webpush"]["workers_memory_a_device"] is None


# ---- sources


def test_sources() -> None:
    assert sources_in("10.0.0.5") == ["10.0.0.5"]
    assert sources_in("10.0.0.16/30") == ["10.0.0.17", "10.0.0.18"]
    assert sources_in("::1") == ["::1"]
    there = Address(2, "10.0.0.1", 80)
    assert [source_of(index, there, ("a", "b", "c")) for index in (0, 1, 2, 300_000, 300_001)] == list("abcab")


# ---- the machine's memory

SLABS = """slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
proc_inode_cache     871   1426    696   23    4 : tunables    0    0    0 : slabdata     62     62      0
dentry             97427 101997    192   21    1 : tunables    0    0    0 : slabdata   4857   4857      0
"""  # noqa: E501  as the kernel writes it


def test_what_listings_of_descriptors_leave_behind_is_taken_off() -> None:
    slabs = parse_slabinfo(SLABS)
    assert slabs == {
        "proc_inode_cache": Cache(871, 696, 62 * 4 * 4096),
        "dentry": Cache(97427, 192, 4857 * 4096),
    }

    def reading(used: int, slab: int, inodes: Cache | None) -> Reading:
        return Reading(used, used, 0, Kernel(slab, 0), inodes, 192)

    before = reading(1_000_000, 100_000, Cache(10, 696, 8192))
    grown = growth(before, reading(3_000_000, 400_000, Cache(110, 696, 100_192)), 100)
    assert grown["subtracted"] == {"proc_inodes": 92_000, "dentries": 19_200}
    assert grown["unavailable"] == {"total": 2_000_000, "a_device": 20_000}
    assert grown["used"] == {"total": 2_000_000 - 111_200, "a_device": 18_888}
    assert grown["kernel"]["total"] == 300_000 - 111_200
    unknown = growth(before, reading(3_000_000, 400_000, None), 0)
    assert unknown["subtracted"] is None and unknown["used"] == {"total": 2_000_000, "a_device": None}
    assert "can't be read" in unknown["note"]


def test_the_page_cache_is_not_in_use_but_shared_memory_is() -> None:
    sizes = {"MemTotal": 1000, "MemAvailable": 700, "MemFree": 400, "Buffers": 20, "Cached": 200, "Shmem": 50}
    text = "".join(f"{name}: {size} kB\n" for name, size in (sizes | {"SwapTotal": 10, "SwapFree": 8}).items())
    reading = reading_of(text, Kernel(1, 2), None, None)
    assert (reading.unavailable, reading.used, reading.swap) == (300 * 1024, 430 * 1024, 2 * 1024)
    now = machine_memory.read()
    assert 0 < now.kernel.slab < now.used


# ---- arguments


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["push", "--online", "0"], "--online"),
        (["push", "--online", "1.5"], "--online"),
        (["push", "--channels", "0"], "--channels"),
        (["push", "--payload", "-1"], "--payload"),
        (["push", "--source", "nowhere"], "--source"),
        (["push", "--dialect", "carrier pigeon"], "--dialect"),
        (["push", "--dialect", "webpush", "--payload", "8"], "9 bytes"),
        (["push", "--dialect", "all", "--payload", "0"], "9 bytes"),
        (["push", "--dialect", "all", "--batch", "5"], "--batch"),
        (["connect", "--dialect", "webpush", "--bare"], "--bare"),
        (["connect", "--source", "10.0.0.0/8"], "65,536"),
        (["connect", "--source", "10.0.0.5/24"], "host bits"),
        (["connect", "--push", "-1"], "--push"),
        (["connect", "--push", "5", "--bare"], "--bare"),
    ],
)
def test_arguments_that_are_wrong(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert text in result.output


# ---- with a farm


def bench(*arguments: str, file: Path, code: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "farm", "bench", *arguments, "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == code, result.stderr + result.stdout
    body = json.loads(file.read_text())
    assert isinstance(body, dict)
    return body


def balanced(run: dict[str, Any]) -> bool:
    """sent = delivered + stored + superseded + refused, so nothing was lost and nobody was cut off."""
    return bool(run["sent"] == run["delivered"] + run["stored"] + run["superseded"] + run["refused"])


def test_a_mix_of_channels_data_and_devices_that_are_away(tmp_path: Path) -> None:
    mix = ("--channels", "3", "--payload", "200", "--online", "0.8", "--rate", "500", "--pushers", "2")
    body = bench("push", "--devices", "300", "--seconds", "1.5", *mix, file=tmp_path / "push.json")
    (run,) = body["runs"]
    assert run["clean"] and balanced(run) and run["wrong_data"] == 0
    assert run["pushes"] + run["unsent"] == 750 and run["mode"] == "open loop"
    assert run["statuses"] == {"200": run["delivered"], "202": run["stored"] + run["superseded"]}
    assert body["setup"]["ready"] == run["held"] == 240
    away = body["away"]
    assert away["clean"] and away["devices"] == away["setup"]["ready"] == 60
    assert away["back"] == away["sample"] > 0
    assert away["stored"] == away["expected"] == away["arrived"] == run["stored"] > 0


def test_two_runs_with_many_processes_and_devices_that_are_away(tmp_path: Path) -> None:
    many = ("--processes", "3", "--pushers", "3", "--connections", "9", "--online", "0.5", "--half")
    arguments = ("push", "--devices", "200", "--store", "memory", "--seconds", "0.5", *many)
    body = bench(*arguments, file=tmp_path / "push.json")
    assert [run["mode"] for run in body["runs"]] == ["flat out", "open loop"]
    for run in body["runs"]:
        assert run["clean"] and balanced(run) and run["delivered"] > 0 and run["stored"] > 0
        assert run["usage"]["groups"]["load pushers"]["processes"] == 3
    away = body["away"]
    assert away["clean"] and max(run["stored"] for run in body["runs"]) <= away["arrived"] <= 100


def test_many_pushes_in_a_request(tmp_path: Path) -> None:
    arguments = ("push", "--devices", "200", "--store", "memory", "--seconds", "0.5", "--pushers", "2", "--half")
    mix = ("--batch", "30", "--connections", "4", "--payload", "40", "--online", "0.5")
    body = bench(*arguments, *mix, file=tmp_path / "push.json")
    for run in body["runs"]:
        assert run["clean"] and balanced(run) and run["delivered"] > 0 and run["stored"] > 0
        assert run["pushes"] % 30 == 0 and run["wrong_data"] == 0
    assert body["away"]["clean"] and body["away"]["arrived"] > 0
    assert "30 in a request" in shown(body).tables[0].title


def test_lines_that_a_farm_refuses(tmp_path: Path) -> None:
    refusing = ("--set", "endpoint.max_batch=5", "--batch", "6")
    (run,) = bench("push", "--devices", "20", "--seconds", "0.2", *refusing, file=tmp_path / "push.json", code=1)[
        "runs"
    ]
    assert run["statuses"] == {"413": run["pushes"]} and run["refused"] == run["pushes"] > 0


def test_data_that_a_farm_refuses(tmp_path: Path) -> None:
    arguments = ("push", "--devices", "20", "--seconds", "0.3", "--payload", "5000")
    (run,) = bench(*arguments, file=tmp_path / "push.json", code=1)["runs"]
    assert run["statuses"] == {"413": run["pushes"]} and run["refused"] == run["pushes"] > 0
    assert balanced(run) and run["delivered"] == 0


def test_devices_that_are_held_and_pushed_to(tmp_path: Path) -> None:
    more = ("--channels", "2", "--ping", "0.5", "--hold", "1.5", "--source", "127.0.0.16/30", "--processes", "2")
    pushes = ("--push", "400", "--push-rate", "1000", "--set", "simplepush.min_ping_interval=0")
    file = tmp_path / "connect.json"
    done = bench("connect", "--devices", "200", "--no-baseline", *more, *pushes, file=file)["connect"]
    assert done["setup"]["ready"] == done["held"] == 200 and not done["drops"]
    assert done["load_processes"] == 2
    assert done["pings"]["answered"] > 0 and done["pings"]["overdue"] == 0
    run = done["push"]
    assert run["pushes"] == run["delivered"] == 400 and run["clean"] and run["unsent"] == 0
    assert run["to_frame_ms"]["max"] > 0 and run["mode"] == "open loop"
    memory = done["machine_memory"]
    for kind in ("used", "kernel", "unavailable"):  # of the whole machine: others may have freed more than this took
        assert memory[kind]["a_device"] == pytest.approx(memory[kind]["total"] / 200, rel=1e-5)
    assert done["user_memory"]["workers"]["after"] > done["user_memory"]["workers"]["before"] > 0


def test_a_farm_that_closes_devices_that_ping_too_often(tmp_path: Path) -> None:
    arguments = ("connect", "--devices", "20", "--no-baseline", "--ping", "0.3", "--hold", "2")
    done = bench(*arguments, "--push", "100", file=tmp_path / "connect.json", code=1)["connect"]
    assert sum(done["drops"].values()) == 20 and done["held"] == 0
    # they had gone before the first push: what was accepted for them waits in the store, and is not lost
    assert done["push"]["statuses"] == {"202": 100}
    assert done["push"]["lost"] == 0 and done["push"]["undelivered"] + done["push"]["superseded"] == 100


def test_webpush_to_devices_that_are_there_and_away(tmp_path: Path) -> None:
    mix = ("--dialect", "webpush", "--channels", "2", "--online", "0.8", "--rate", "400", "--pushers", "2")
    body = bench("push", "--devices", "200", "--seconds", "1.5", *mix, file=tmp_path / "push.json")
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
    (run,) = bench(*arguments, file=tmp_path / "push.json", code=1)["runs"]
    assert run["statuses"].keys() <= {"413", "0"} and run["refused"] > 0  # it may close before it has read all
    assert run["delivered"] == 0 and run["lost"] == 0


def test_both_dialects_one_after_the_other(tmp_path: Path) -> None:
    arguments = ("push", "--dialect", "all", "--devices", "60", "--seconds", "0.5", "--store", "memory", "--half")
    body = bench(*arguments, file=tmp_path / "push.json")
    simplepush, webpush = body["parts"]
    assert (simplepush["dialect"], simplepush["payload"]) == ("simplepush", 0)
    assert (webpush["dialect"], webpush["payload"]) == ("webpush", 1024)
    for part in body["parts"]:
        assert all(run["clean"] and balanced(run) and run["delivered"] == run["pushes"] > 0 for run in part["runs"])
    rates = [part["runs"][0]["notifications_a_second"] for part in body["parts"]]
    assert body["ratios"]["webpush"]["notifications_a_second"] == pytest.approx(rates[1] / rates[0], rel=1e-4)
    assert body["ratios"]["webpush"]["router_cpu_a_push"] > 0
    page = shown(body)
    assert page.tables[0].title == "WebPush : SimplePush"
    assert page.tables[0].rows[0][-1] == f"{rates[1] / rates[0]:.2f}"
    titles = [table.title for table in page.tables]
    assert "Pushing to 60 devices (SimplePush)" in titles
    assert "Pushing to 60 devices (WebPush, 1,024 bytes each)" in titles
    assert "WebPush at " in page.headline and len(page.charts) == 4
    found = evidence(PROFILES["small"], [("x.json", body)])
    assert len(found.pushes) == 4 and sum("(WebPush)" in one.source for one in found.pushes) == 2


def test_webpush_devices_that_are_held_and_pushed_to(tmp_path: Path) -> None:
    more = ("--channels", "2", "--ping", "0.5", "--hold", "1.5", "--processes", "2")
    pushes = ("--push", "300", "--push-rate", "1000", "--set", "webpush.min_ping_interval=0")
    arguments = ("connect", "--dialect", "webpush", "--devices", "100", "--no-baseline")
    body = bench(*arguments, *more, *pushes, file=tmp_path / "connect.json")
    done = body["connect"]
    assert body["dialect"] == "webpush" and done["setup"]["ready"] == done["held"] == 100 and not done["drops"]
    assert done["pings"]["answered"] > 0 and done["pings"]["overdue"] == 0
    run = done["push"]
    assert run["pushes"] == run["delivered"] == 300 and run["clean"] and run["unsent"] == 0


def test_webpush_devices_that_ping_too_often_are_closed(tmp_path: Path) -> None:
    arguments = ("connect", "--dialect", "webpush", "--devices", "20", "--no-baseline", "--ping", "0.3", "--hold", "2")
    done = bench(*arguments, "--push", "100", file=tmp_path / "connect.json", code=1)["connect"]
    assert sum(done["drops"].values()) == 20 and done["held"] == 0
    assert done["push"]["statuses"] == {"201": 100}
    assert done["push"]["lost"] == done["push"]["superseded"] == 0 and done["push"]["undelivered"] == 100


def test_both_dialects_are_held_one_after_the_other(tmp_path: Path) -> None:
    arguments = ("connect", "--dialect", "all", "--devices", "300", "--hold", "0.2")
    body = bench(*arguments, file=tmp_path / "connect.json")
    simplepush, webpush = body["parts"]
    assert [part["dialect"] for part in body["parts"]] == ["simplepush", "webpush"]
    assert simplepush["connect"]["held"] == webpush["connect"]["held"] == 300
    assert "baseline" in simplepush and "baseline" not in webpush
    costs = [part["connect"]["user_memory"]["workers"]["a_connection"] for part in body["parts"]]
    assert body["ratios"]["webpush"]["workers_memory_a_device"] == (
        pytest.approx(costs[1] / costs[0], rel=1e-4) if min(costs) > 0 else None
    )
    assert body["ratios"]["webpush"]["setup_rate"] > 0
    page = shown(body)
    assert page.tables[0].title == "WebPush : SimplePush"
    assert {"Connecting devices (SimplePush)", "Connecting devices (WebPush)"} <= {table.title for table in page.tables}
    assert "WebPush: 300 devices ready" in page.headline


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "push.json"
    command = [sys.executable, "-m", "farm", "bench", "push", "--devices", "100", "--seconds", "60"]
    command += ["--online", "0.5", "--json", str(file)]
    with (
        tempfile.TemporaryDirectory() as temporary,  # short, for a farm has Unix sockets in its folder
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"TMPDIR": temporary},
        ) as process,
    ):
        assert process.stderr is not None
        assert any(b"pushing flat out:" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        left = os.listdir(temporary)
    assert process.returncode == 1
    body = json.loads(file.read_text())
    (run,) = body["runs"]
    assert body["interrupted"] and run["delivered"] > 0
    assert not left
