"""`farm bench storm`, and what it stands on: protocols, devices that come back, and the check of pushes to them."""

import io
import json
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from support.misbehaving import Misbehaving, Rules, misbehaving

from bench.cli import main
from bench.errors import BenchError
from bench.farm_process import attach
from bench.interrupt import Interrupt
from bench.load import frames
from bench.load.http_bytes import payload_of
from bench.load.protocols import protocol_of
from bench.load.protocols.base import DONE, PONG, Protocol, Scenario
from bench.load.reconnect import Backoff
from bench.load.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG, Arrivals, Pushes
from bench.progress import Progress
from bench.runs import storm, storm_figures
from bench.runs.collected import Absences
from bench.runs.delivery_checker import MEMORY_SECONDS, DeliveryChecker
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers
from bench.target import Target
from bench.views import storm as view

SECOND = 1_000_000
UAID = bytes(range(16))


# ---- protocols


def unmasked(data: bytes) -> list[bytes]:
    """The payloads of whole client frames."""
    found = []
    while data:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        key, body = data[start : start + 4], data[start + 4 : start + 4 + size]
        found.append(bytes(byte ^ key[at % 4] for at, byte in enumerate(body)))
        data = data[start + 4 + size :]
    return found


def said(data: bytes) -> list[Any]:
    return [json.loads(payload) for payload in unmasked(data)]


def simplepush(channels: int = 1, payload: int = 0, seed: bytes = b"123456789") -> Protocol:
    return protocol_of("simplepush", Scenario("h", channels=channels, payload=payload, seed=seed), {})


def note(*updates: dict[str, Any]) -> bytes:
    return json.dumps({"messageType": "notification", "updates": updates}, separators=(",", ":")).encode()


def channel_of(protocol: Protocol, device: int, number: int) -> str:
    """The channel that a device registers as its `number`-th."""
    step = protocol.answered(device, 0, b'{"messageType":"hello","uaid":"a","status":200}', b"")
    for _ in range(number):
        assert step is not None
        answer = b'{"messageType":"register","status":200,"pushEndpoint":"http://h/u"}'
        step = protocol.answered(device, step.step, answer, b"")
    assert step is not None
    (message,) = said(step.send)
    assert message["messageType"] == "register"
    return str(message["channelID"])


def test_a_simplepush_device_registers_all_its_channels() -> None:
    protocol = simplepush(channels=3)
    step = protocol.opened(7, b"")
    assert said(step.send) == [{"messageType": "hello", "uaid": "", "channelIDs": []}]
    assert protocol.answered(7, step.step, b"{}", b"") is None
    hello = {"messageType": "hello", "uaid": UAID.hex(), "status": 200}
    answered = protocol.answered(7, step.step, json.dumps(hello).encode(), b"")
    endpoints, channels = {}, []
    while answered is not None and answered.step != DONE:
        (message,) = said(answered.send)
        channels.append(message["channelID"])
        reply = {"messageType": "register", "status": 200, "pushEndpoint": f"http://h/{len(channels)}"}
        answered = protocol.answered(7, answered.step, json.dumps(reply).encode(), b"")
        assert answered is not None
        endpoints[answered.channel] = answered.endpoint
    assert endpoints == {21: b"http://h/1", 22: b"http://h/2", 23: b"http://h/3"}
    assert len(set(channels)) == 3 and all(len(channel) == 36 and channel[14] == "4" for channel in channels)


def test_channels_of_a_simplepush_device_are_known_again() -> None:
    protocol = simplepush(channels=2)
    mine, other = channel_of(protocol, 5, 1), channel_of(protocol, 6, 0)
    alien = channel_of(simplepush(channels=2, seed=b"987654321"), 5, 1)
    received = protocol.received(5, note({"channelID": mine, "version": 9}))
    assert received is not None and received.updates == ((11, 9, DATA_RIGHT),) and not received.strays
    assert said(received.reply) == [{"messageType": "ack", "updates": [{"channelID": mine, "version": 9}]}]
    for wrong in (other, alien, "x", mine[:-1] + "x"):
        received = protocol.received(5, note({"channelID": wrong, "version": 9}))
        assert received is not None and received.strays == 1 and not received.updates and not received.reply
    both = protocol.received(5, note({"channelID": mine, "version": 1}, {"channelID": other, "version": 2}))
    assert both is not None and (len(both.updates), both.strays) == (1, 1)
    assert protocol.received(5, b"{}") is protocol.received(5, b'{"messageType":"ping","status":200}') is PONG
    assert protocol.received(5, b'{"messageType":"unregister","status":200}') is None


def test_the_data_of_an_update_is_looked_at() -> None:
    protocol = simplepush(payload=30)
    channel = channel_of(protocol, 3, 0)
    right = payload_of(77, 30).decode()
    for data, code in ((right, DATA_RIGHT), (right[:-1], DATA_WRONG), ("", DATA_MISSING), (None, DATA_MISSING)):
        update = {"channelID": channel, "version": 77} | ({} if data is None else {"data": data})
        received = protocol.received(3, note(update))
        assert received is not None and received.updates == ((3, 77, code),)


@pytest.mark.parametrize("uaid", [UAID.hex(), "00010203-0405-0607-0809-0a0b0c0d0e0f"])
def test_a_simplepush_device_comes_back_as_itself(uaid: str) -> None:
    protocol = simplepush(channels=2)
    hello = json.dumps({"messageType": "hello", "uaid": uaid, "status": 200}).encode()
    first = protocol.answered(4, 0, hello, b"")
    assert first is not None and first.identity == UAID
    (again,) = said(protocol.opened(4, UAID).send)
    assert again == {
        "messageType": "hello",
        "uaid": uaid,
        "channelIDs": [channel_of(protocol, 4, 0), channel_of(protocol, 4, 1)],
    }
    # asking for the channels above was one more hello, with a uaid that is none
    protocol.answered(4, 0, hello, b"")
    back = protocol.answered(4, 0, hello, UAID)
    assert back is not None and back.step == DONE and not back.send
    other = protocol.answered(4, 0, hello, bytes(16))
    assert other is not None and other.step != DONE and other.identity == UAID


def test_a_device_that_subscribes() -> None:
    arguments = {"path": "/sub/{index}", "first": "SUB {index}", "answer": "+OK", "endpoint": "http://h/pub/{index}"}
    protocol = protocol_of("subscribe", Scenario("h"), {**arguments, "after": "\r\n", "replies": {"PING": "PONG"}})
    assert protocol.request(8).startswith(b"GET /sub/8 HTTP/1.1\r\n")
    assert b"Sec-WebSocket-Protocol" not in protocol.request(8)
    step = protocol.opened(8, b"")
    assert step.step != DONE and unmasked(step.send) == [b"SUB 8"]
    assert protocol.answered(8, 0, b"INFO", b"") is None
    pinged = protocol.answered(8, 0, b"PING", b"")
    assert pinged is not None and pinged.step == 0 and unmasked(pinged.send) == [b"PONG"]
    done = protocol.answered(8, 0, b"...+OK", b"")
    assert done is not None and (done.step, done.channel, done.endpoint) == (DONE, 8, b"http://h/pub/8")
    received = protocol.received(8, b"MSG a 9\r\n1234.5")
    assert received is not None and received.updates == ((8, 1234, DATA_RIGHT),) and not received.reply
    assert protocol.received(8, b"1234") is None
    plain = protocol_of("subscribe", Scenario("h", "/x"), {"ping": "p", "pong": "q"})
    assert plain.request(1).startswith(b"GET /x ") and plain.opened(1, b"").step == DONE
    assert plain.received(1, b"q") is PONG and plain.received(1, b"word") is None
    assert plain.ping == frames.client_frame(b"p")


@pytest.mark.parametrize(
    ("name", "scenario", "arguments", "text"),
    [
        ("morse", Scenario("h"), {}, "no protocol 'morse'"),
        ("subscribe", Scenario("h"), {"colour": "red"}, "colour"),
        ("subscribe", Scenario("h", channels=2), {}, "one channel"),
        ("simplepush", Scenario("h", channels=0), {}, "channels"),
    ],
)
def test_protocols_that_can_not_be(name: str, scenario: Scenario, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        protocol_of(name, scenario, arguments)
    with LoadProcesses() as processes, pytest.raises(BenchError, match=text):
        load = Load(1, protocol=name, arguments=arguments, channels=scenario.channels)
        VirtualUsers.of(processes, load, attach("ws://127.0.0.1:1/", ""))


# ---- the delivery checker


def pushes(*rows: tuple[int, int, int]) -> Pushes:
    """(channel, second, status); each answered after 1000 microseconds."""
    result = Pushes()
    for channel, second, status in rows:
        result.channels.append(channel)
        result.versions.append(second * SECOND)
        result.statuses.append(status)
        result.times.append(1000)
    return result


def arrivals(*rows: tuple[int, int, int]) -> Arrivals:
    """(channel, second of the push, second of the arrival)."""
    result = Arrivals()
    for channel, version, second in rows:
        result.channels.append(channel)
        result.versions.append(version * SECOND)
        result.times.append(second * SECOND)
    return result


def absences(*rows: tuple[int, int, int | None]) -> Absences:
    """(device, second gone, second back)."""
    result = Absences()
    for device, gone, back in rows:
        result.gone.append(device)
        result.gone_times.append(gone * SECOND)
        if back is not None:
            result.back.append(device)
            result.back_times.append(back * SECOND)
            result.attempts.append(1)
    return result


@pytest.mark.parametrize(
    ("sent", "came", "away", "counts"),
    [
        ([(1, 10, 200)], [(1, 10, 11)], [], {"delivered": 1}),
        ([(1, 10, 200)], [], [], {"lost": 1}),
        ([(1, 10, 202)], [], [], {"lost": 1}),
        ([(1, 10, 202)], [], [(1, 9, None)], {"stored": 1}),
        ([(1, 10, 202)], [(1, 10, 21)], [(1, 9, 20)], {"delivered": 1}),
        ([(1, 10, 202)], [], [(1, 9, 20)], {"lost": 1}),
        # the newest of a channel stands for those before it, if the device was away
        ([(1, 10, 202), (1, 11, 202)], [(1, 11, 21)], [(1, 9, 20)], {"delivered": 1, "superseded": 1}),
        ([(1, 10, 200), (1, 12, 202)], [(1, 12, 21)], [(1, 11, 20)], {"delivered": 1, "superseded": 1}),
        ([(1, 10, 200), (1, 12, 200)], [(1, 12, 13)], [], {"delivered": 1, "lost": 1}),
        ([(1, 10, 202), (1, 12, 200)], [(1, 12, 13)], [], {"delivered": 1, "superseded": 1}),
        # twice is right only when the device was away in between
        ([(1, 10, 200)], [(1, 10, 11), (1, 10, 21)], [(1, 12, 20)], {"delivered": 1, "resent": 1}),
        ([(1, 10, 200)], [(1, 10, 11), (1, 10, 12)], [], {"delivered": 1, "duplicates": 1}),
        ([(1, 10, 200)], [(1, 10, 21), (1, 10, 22)], [(1, 9, 20)], {"delivered": 1, "duplicates": 1}),
        ([(1, 10, 503), (2, 11, 0)], [], [], {"refused": 1, "unanswered": 1}),
        ([(1, 10, 0)], [(1, 10, 11)], [], {"unanswered": 1, "refused_but_arrived": 1}),
        ([], [(1, 10, 11)], [], {"unexpected": 1}),
        ([], [(1, 3, 11)], [], {"resent": 1}),  # from before the check began
    ],
)
def test_the_checker_judges_devices_that_come_back(
    sent: list[tuple[int, int, int]],
    came: list[tuple[int, int, int]],
    away: list[tuple[int, int, int | None]],
    counts: dict[str, int],
) -> None:
    checker = DeliveryChecker(grace=5, since=5 * SECOND)
    checker.absences(absences(*away))
    checker.pushed(pushes(*sent))
    checker.arrived(arrivals(*came))
    checker.settle(100 * SECOND)
    fields = checker.fields()
    assert fields.pop("statuses") == {str(status): [row[2] for row in sent].count(status) for _, _, status in sent}
    bad = {"lost", "duplicates", "unexpected", "wrong_data"}
    assert fields.pop("clean") == (not bad & counts.keys())
    assert fields == {**dict.fromkeys(fields, 0), "sent": len(sent), **counts}
    total = sum(fields[name] for name in ("delivered", "superseded", "refused", "unanswered", "lost", "stored"))
    assert total == fields["sent"]


def test_the_checker_waits_for_the_time_of_grace() -> None:
    checker = DeliveryChecker(channels=2, grace=5)
    checker.absences(absences((1, 10, 30)))
    checker.pushed(pushes((3, 20, 202)))
    checker.settle(34 * SECOND)
    assert checker.open == 1 and checker.owed() == {1} and checker.clean
    checker.settle(36 * SECOND)
    assert checker.counts["lost"] == 1 and checker.owed() == {1} and not checker.clean


def test_the_checker_tells_missed_messages_from_live_ones() -> None:
    checker = DeliveryChecker()
    checker.absences(absences((1, 10, 30)))
    checker.pushed(pushes((1, 9, 200), (1, 20, 202), (2, 20, 200), (1, 31, 200)))
    checker.arrived(arrivals((1, 9, 9), (2, 20, 21), (1, 20, 33), (1, 31, 33)))
    assert list(checker.live) == [0, 1 * SECOND, 2 * SECOND]
    assert list(checker.waited) == [3 * SECOND] and checker.complete == {1: 33 * SECOND}


def test_the_checker_forgets_what_is_old() -> None:
    checker = DeliveryChecker()
    for second in range(1, 4000, 10):
        checker.absences(absences((1, second, second + 1)))
        checker.pushed(pushes((1, second + 2, 200), (2, second + 2, 503)))
        checker.arrived(arrivals((1, second + 2, second + 3)))
        checker.settle((second + 5) * SECOND)
    kept = 2 * MEMORY_SECONDS // 10 + 2
    assert len(checker._arrived) <= kept and len(checker._refused) <= kept and len(checker._backs[1]) <= kept
    checker.arrived(arrivals((1, 3, 5000)))
    assert checker.counts["resent"] == 1 and checker.clean


def test_wrong_data_is_wrong_unless_it_was_stored() -> None:
    checker = DeliveryChecker()
    checker.absences(absences((2, 5, 20)))
    checker.pushed(pushes((1, 10, 200), (1, 11, 200), (2, 10, 202), (1, 12, 200)))
    came = arrivals((1, 10, 11), (1, 11, 12), (2, 10, 21), (1, 12, 13))
    came.data.extend([DATA_WRONG, DATA_MISSING, DATA_MISSING, DATA_RIGHT])
    checker.arrived(came)
    assert checker.counts["wrong_data"] == 2 and checker.counts["delivered"] == 4


# ---- figures


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


# ---- devices in their processes


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


@contextmanager
def users_of(server: Misbehaving, load: Load) -> Iterator[VirtualUsers]:
    with LoadProcesses(Interrupt()) as processes:
        yield VirtualUsers.of(processes, load, attach(server.url, ""))


def until(users: VirtualUsers, what: str, count: int) -> None:
    """Wait until a counter is there; the test's own limit is that of pytest."""
    deadline = time.monotonic() + 60
    while users.count_anew(what) != count:
        assert time.monotonic() < deadline, f"{what}: {users.count(what)}, not {count}"
        users.processes.receive(0.05)


def test_virtual_users_grow_and_keep_their_numbers() -> None:
    with (
        misbehaving(Rules()) as server,
        users_of(server, Load(10, processes=2, channels=2, endpoints_every=1)) as users,
    ):
        first = users.bring_up(quiet(), "")
        users.grow(5)
        second = users.bring_up(quiet(), "")
        assert (first.ready, first.wanted, second.ready, second.wanted) == (10, 10, 5, 5)
        assert sorted(first.channels) == list(range(20)) and sorted(second.channels) == list(range(20, 30))
        assert len(first.durations) == 10 and len(second.durations) == 5
        assert users.collect().devices == 15 and len(users.children) == 2


def test_devices_that_are_cut_without_a_backoff_are_gone() -> None:
    with misbehaving(Rules()) as server, users_of(server, Load(10)) as users:
        users.bring_up(quiet(), "")
        users.cut()
        held = users.collect()
        assert held.devices == 0 and sorted(held.arrivals.gone) == list(range(10)) and not held.drops


def test_devices_come_back_as_themselves_until_they_succeed() -> None:
    def refuse_the_first_returns(number: int) -> str:
        return "refuse" if 10 <= number < 15 else "silent hello" if number == 15 else ""

    load = Load(10, timeout=0.5, backoff=Backoff(0.1))
    with misbehaving(Rules(device=refuse_the_first_returns)) as server, users_of(server, load) as users:
        users.bring_up(quiet(), "")
        users.cut()
        until(users, "back", 10)
        held = users.collect()
        assert server.faults == {"refuse": 5, "silent hello": 1} and server.returns == 10
    assert held.devices == 10 and held.reassigned == 0
    assert held.return_failures == {"upgrade: HTTP 503": 5, "hello: no answer in time": 1}
    assert sum(held.absences.attempts) == 16 and sorted(held.absences.back) == list(range(10))


def test_devices_that_a_server_does_not_know_again_are_told() -> None:
    with misbehaving(Rules()) as server, users_of(server, Load(10, backoff=Backoff(0.1))) as users:
        users.bring_up(quiet(), "")
        server.stored.clear()
        users.cut()
        until(users, "back", 10)
        assert users.collect().reassigned == 10


def test_devices_that_a_server_drops_come_back_too() -> None:
    rules = Rules(device=lambda number: "reset later" if number < 4 else "", hold=0.1)
    with misbehaving(rules) as server, users_of(server, Load(8, backoff=Backoff(0.1))) as users:
        users.bring_up(quiet(), "")
        until(users, "back", 4)
        held = users.collect()
    assert held.devices == 8 and sum(held.drops.values()) == 4


def test_churn_cuts_some_and_stops() -> None:
    with misbehaving(Rules()) as server, users_of(server, Load(50, backoff=Backoff(0.05))) as users:
        users.bring_up(quiet(), "")
        users.churn(200)
        while users.count_anew("back") < 20:
            pass
        users.churn(0)
        until(users, "away", 0)
        held = users.collect()
        assert len(held.absences.gone) == len(held.absences.back) >= 20 and not held.drops
        users.processes.receive(0.3)
        assert not users.collect().absences.gone


# ---- storms


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


def farm_bench(*arguments: str, file: Path, code: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "farm", "bench", *arguments, "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == code, result.stderr + result.stdout
    body = json.loads(file.read_text())
    assert isinstance(body, dict)
    return body


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
    tables = view.tables(body)
    assert [table.title for table in tables][1:3] == [
        "What app servers saw, without jitter",
        "What app servers saw, with jitter",
    ]
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
