"""`farm bench push` and `connect --push` on a real farm."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.bench import balanced, farm_bench

from bench.figures.results import shown


def test_a_mix_of_channels_data_and_devices_that_are_away(tmp_path: Path) -> None:
    mix = ("--channels", "3", "--payload", "200", "--online", "0.8", "--rate", "500", "--pushers", "2")
    body = farm_bench("push", "--devices", "300", "--seconds", "1.5", *mix, file=tmp_path / "push.json")
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
    body = farm_bench(*arguments, file=tmp_path / "push.json")
    assert [run["mode"] for run in body["runs"]] == ["flat out", "open loop"]
    for run in body["runs"]:
        assert run["clean"] and balanced(run) and run["delivered"] > 0 and run["stored"] > 0
        assert run["usage"]["groups"]["load pushers"]["processes"] == 3
    away = body["away"]
    assert away["clean"] and max(run["stored"] for run in body["runs"]) <= away["arrived"] <= 100


def test_many_pushes_in_a_request(tmp_path: Path) -> None:
    arguments = ("push", "--devices", "200", "--store", "memory", "--seconds", "0.5", "--pushers", "2", "--half")
    mix = ("--batch", "30", "--connections", "4", "--payload", "40", "--online", "0.5")
    body = farm_bench(*arguments, *mix, file=tmp_path / "push.json")
    for run in body["runs"]:
        assert run["clean"] and balanced(run) and run["delivered"] > 0 and run["stored"] > 0
        assert run["pushes"] % 30 == 0 and run["wrong_data"] == 0
    assert body["away"]["clean"] and body["away"]["arrived"] > 0
    assert "30 in a request" in shown(body).tables[0].title


def test_a_farm_that_closes_app_servers_that_ask_nothing(tmp_path: Path) -> None:
    """Of many connections few are in use at this rate: the farm may close the others, and nothing has failed."""
    few = ["--rate", "20", "--connections", "8", "--set", "endpoint.idle_timeout=0.3"]
    (run,) = farm_bench("push", "--devices", "50", "--seconds", "2", *few, file=tmp_path / "push.json")["runs"]
    assert run["clean"] and run["errors"] == {} and run["statuses"] == {"200": run["pushes"]}


def test_lines_that_a_farm_refuses(tmp_path: Path) -> None:
    refusing = ("--set", "endpoint.max_batch=5", "--batch", "6")
    (run,) = farm_bench("push", "--devices", "20", "--seconds", "0.2", *refusing, file=tmp_path / "push.json", code=1)[
        "runs"
    ]
    assert run["statuses"] == {"413": run["pushes"]} and run["refused"] == run["pushes"] > 0


def test_data_that_a_farm_refuses(tmp_path: Path) -> None:
    arguments = ("push", "--devices", "20", "--seconds", "0.3", "--payload", "5000")
    (run,) = farm_bench(*arguments, file=tmp_path / "push.json", code=1)["runs"]
    assert run["statuses"] == {"413": run["pushes"]} and run["refused"] == run["pushes"] > 0
    assert balanced(run) and run["delivered"] == 0


def test_devices_that_are_held_and_pushed_to(tmp_path: Path) -> None:
    more = ("--channels", "2", "--ping", "0.5", "--hold", "1.5", "--source", "127.0.0.16/30", "--processes", "2")
    pushes = ("--push", "400", "--push-rate", "1000", "--set", "simplepush.min_ping_interval=0")
    file = tmp_path / "connect.json"
    done = farm_bench("connect", "--devices", "200", "--no-baseline", *more, *pushes, file=file)["connect"]
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
    done = farm_bench(*arguments, "--push", "100", file=tmp_path / "connect.json", code=1)["connect"]
    assert sum(done["drops"].values()) == 20 and done["held"] == 0
    # they had gone before the first push: what was accepted for them waits in the store, and is not lost
    assert done["push"]["statuses"] == {"202": 100}
    assert done["push"]["lost"] == 0 and done["push"]["undelivered"] + done["push"]["superseded"] == 100


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
