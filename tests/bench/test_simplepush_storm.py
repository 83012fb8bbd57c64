"""`farm bench storm`: its figures, servers that misbehave, and a real farm."""

import json
import signal
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.bench import SECOND, absences, arrivals, farm_bench, pushes, quiet
from support.misbehaving import Misbehaving, Rules, misbehaving

from bench.cli import main
from bench.interrupt import Interrupt
from bench.runs import storm, storm_figures
from bench.runs.delivery_checker import DeliveryChecker
from bench.runs.load import Load
from bench.target import Target
from bench.views import storm as view

pytestmark = pytest.mark.measured


def storms_of(server: Misbehaving, **plan: Any) -> list[dict[str, Any]]:
    load = Load(40, endpoints_every=1, timeout=5)
    options = {"rate": 100.0, "calm": 0.3, "backoff": 0.5, "grace": 0.5, "jitters": (False,), **plan}
    target = Target(url=server.url, admin="")
    body = storm.run(target, load, storm.Plan(**options), interrupt=Interrupt(), progress=quiet())
    document = {"command": "storm", "options": {"backoff": 0.5}, **body}
    json.dumps(document)
    assert all(table.rows for table in view.tables(document)) and view.charts(document)
    found = body["storms"]
    assert isinstance(found, list)
    return found


def test_when_a_share_was_back() -> None:
    times = [float(second) for second in range(1, 11)]
    assert [storm_figures.at_share(times, share, 10) for share in (0.5, 0.95, 1.0)] == [5.0, 10.0, 10.0]
    assert storm_figures.at_share(times, 0.5, 20) == 10.0 and storm_figures.at_share(times, 0.55, 20) is None
    assert storm_figures.curve([2.0], 2)[-1] == (2.0, 0.5)
    assert storm_figures.curve([], 2) == [(0.0, 0.0)]


def test_returns_by_device() -> None:
    gone = absences((1, 100, 105), (2, 100, 110), (3, 100, None), (2, 112, 120))
    gone.attempts = array("H", [1, 2, 1])
    checker = DeliveryChecker(grace=5)
    checker.absences(gone)
    checker.pushed(pushes((1, 101, 202), (2, 101, 202), (3, 101, 202)))
    checker.arrived(arrivals((1, 101, 107)))
    checker.settle(130 * SECOND)
    figures = storm_figures.returns(100 * SECOND, 3, gone, checker)
    assert (figures["cut_off"], figures["cut_again"], figures["back"]) == (3, 1, 2)
    assert figures["back_seconds"] == {"50%": 20.0, "95%": None, "99%": None, "100%": None}
    assert figures["whole_seconds"]["50%"] is None  # only device 1 has all: 2 lost its message
    assert figures["whole_curve"][-1] == (7.0, 0.33)
    assert figures["attempts"] == {"1": 2, "2": 1} and figures["attempts_mean"] == pytest.approx(4 / 3)


def test_what_app_servers_saw_by_phase_and_second() -> None:
    sent = pushes((1, 10, 200), (2, 11, 200), (3, 12, 202), (4, 13, 503), (5, 14, 0), (6, 20, 200))
    seen = storm_figures.seen_by_app_servers(sent, 10 * SECOND, 12 * SECOND, 15 * SECOND)
    phases = seen["phases"]
    assert [phases[name]["pushes"] for name in ("before", "during", "after")] == [2, 3, 1]
    assert phases["during"]["statuses"] == {"0": 1, "202": 1, "503": 1}
    assert (phases["during"]["refused"], phases["during"]["unanswered"]) == (1, 1)
    assert phases["before"]["to_response_ms"]["p50"] == 1.0
    bins = seen["a_second"]
    assert bins["seconds"] == list(range(-2, 9)) and bins["width"] == 1
    assert bins["statuses"]["200"] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert sum(sum(rates) for rates in bins["statuses"].values()) == 6
    long = pushes(*((1, second, 200) for second in range(1000)))
    bins = storm_figures.seen_by_app_servers(long, 0, 0, SECOND)["a_second"]
    assert bins["width"] == 11 and len(bins["seconds"]) <= storm_figures.MOST_BINS
    assert sum(bins["statuses"]["200"]) * 11 == pytest.approx(1000, abs=0.1)


def test_messages_that_a_server_forgets_while_devices_are_away_are_lost() -> None:
    with misbehaving(Rules(back=lambda number: "forget")) as server:
        (result,) = storms_of(server, backoff=1.5)  # time for some pushes on a busy machine, too
    assert result["back"] == result["held"] == 40
    assert result["deliveries"]["lost"] > 0 and not result["clean"]
    assert result["whole_seconds"]["100%"] is None and result["back_seconds"]["100%"] is not None


def test_messages_that_a_server_brings_twice_are_duplicates() -> None:
    with misbehaving(Rules(back=lambda number: "twice")) as server:
        (result,) = storms_of(server)
    assert result["deliveries"]["duplicates"] > 0 and not result["clean"]


def test_devices_that_never_come_back() -> None:
    with misbehaving(Rules(device=lambda number: "refuse" if number >= 40 else "")) as server:
        (result,) = storms_of(server, limit=1.5, rate=0)
    assert result["back"] == result["held"] == 0 and not result["clean"]
    assert result["back_seconds"]["50%"] is None
    assert result["attempt_failures"] == {"upgrade: HTTP 503": server.faults["refuse"]}
    assert server.faults["refuse"] >= 40 and result["deliveries"]["sent"] == 0


def test_how_long_a_message_took_by_phase() -> None:
    came = arrivals((1, 9, 9), (1, 10, 11), (2, 12, 15), (1, 15, 15))
    phases = storm_figures.phases_of(11 * SECOND, 15 * SECOND, 12 * SECOND)
    found = storm_figures.to_frame(came, 10 * SECOND, phases)
    waits = {name: times.get("p50") for name, times in found.items()}
    assert waits == {"before": 1000, "away": None, "during": 3000, "after": 0}


def test_a_server_that_loses_what_is_for_devices_that_stay_is_found_out() -> None:
    with misbehaving(Rules(push=lambda number: "lose" if number % 7 == 6 else "")) as server:
        (result,) = storms_of(server, stay=20)
    stayed = result["stayed"]
    assert (stayed["devices"], stayed["connections_lost"]) == (20, 0)
    assert 0 < stayed["deliveries"]["lost"] < stayed["deliveries"]["sent"] / 2
    assert not stayed["clean"] and not result["clean"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_storm_on_a_farm_loses_nothing(restart: bool, tmp_path: Path) -> None:
    arguments = ["storm", "--devices", "300", "--calm", "0.5", "--backoff", "0.5", "--rate", "200"]
    body = farm_bench(*arguments, *(["--restart"] if restart else []), file=tmp_path / "storm.json")
    assert [result["jitter"] for result in body["storms"]] == [False, True]
    for result in body["storms"]:
        deliveries = result["deliveries"]
        assert result["cut_off"] >= 300 and result["back"] == result["held"] == 300
        assert result["clean"] and deliveries["lost"] == 0
        assert result["back_seconds"]["50%"] <= result["back_seconds"]["100%"] <= result["whole_seconds"]["100%"]
        assert result["back_seconds"]["50%"] >= 0.25
        assert deliveries["sent"] == sum(phase["pushes"] for phase in result["pushes"]["phases"].values())
        assert deliveries["statuses"]["202"] > 0
        assert sum(int(tries) * count for tries, count in result["attempts"].items()) >= 300
        assert result["usage"]["groups"]["workers"]["cpu_seconds"] > 0
        stayed = result["stayed"]
        assert (stayed is None) == restart
        if stayed is not None:
            assert (stayed["devices"], stayed["connections_lost"], stayed["clean"]) == (100, 0, True)
            phases = [phase for phase in stayed["phases"].values() if phase["pushes"]]
            assert len(phases) > 2
            assert stayed["deliveries"]["delivered"] == sum(phase["pushes"] for phase in phases)
            assert all(set(phase["statuses"]) == {"200"} for phase in phases)
            assert all(0 < phase["to_frame_ms"]["p50"] <= phase["to_frame_ms"]["p99"] for phase in phases)
    tables = view.tables(body)
    kinds = ["What app servers saw"] if restart else ["What app servers saw", "100 devices that were not cut off"]
    titles = [f"{kind}, {jitter} jitter" for kind in kinds for jitter in ("without", "with")]
    assert [table.title for table in tables][1 : 1 + len(titles)] == titles
    share, *answered = view.charts(body)
    assert [series.name for series in share.series][::2] == ["without jitter: back", "with jitter: back"]
    assert all(series.y[-1] == 100 for series in share.series)
    assert all(len(series.x) == len(series.y) for chart in answered for series in chart.series)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["storm", "--help"], 0, "farm bench storm --devices"),
        (["storm", "--jitter", "some"], 2, "--jitter"),
        (["storm", "--restart", "--url", "ws://127.0.0.1:1/"], 2, "--restart"),
        (["storm", "--url", "ws://127.0.0.1:1/", "--admin", "", "--devices", "3"], 1, "no device could be set up"),
    ],
)
def test_arguments(arguments: list[str], code: int, text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert text in " ".join(result.output.split())


def test_an_interrupt_ends_a_storm_with_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "storm.json"
    command = [sys.executable, "-m", "bench.cli", "storm", "--admin", "", "--devices", "20", "--calm", "0.2"]
    with misbehaving(Rules()) as server:
        command += ["--url", server.url, "--backoff", "1000", "--json", str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
            assert bench.stderr is not None
            assert any(b"coming back: " in line for line in bench.stderr)
            bench.send_signal(signal.SIGINT)
            output, _ = bench.communicate(timeout=60)
    assert bench.returncode == 1 and b"interrupted" in output
    body = json.loads(file.read_text())
    (result,) = body["storms"]  # the second storm never began
    assert body["interrupted"] and (result["cut_off"], result["back"]) == (20, 0)
    assert result["deliveries"]["stored"] > 0 and result["deliveries"]["lost"] == 0
