"""`farm bench fanout` with Pusher: servers that misbehave in known ways."""

import pytest
from support.common import deaf_port
from support.misbehaving import Rules, every
from support.misbehaving_pusher import SUBSCRIBERS, fan_out, misbehaving_pusher, run_of

from bench.errors import BenchError
from bench.runs.deliveries import clean

WAIT_SECONDS = 60.0
CHANNEL = "fanout-1"


@pytest.mark.parametrize("rate", [0.0, 100.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_good_server_gets_a_clean_report(rate: float, channels: int) -> None:
    with misbehaving_pusher(Rules()) as server:
        body = fan_out(server, rate=rate, channels=channels, grace=WAIT_SECONDS)
        run = run_of(body, server)
    assert clean(run) and run["held"] == SUBSCRIBERS and not run["errors"]
    assert run["delivered"] == run["expected"] == run["events"] * SUBSCRIBERS // channels
    assert run["statuses"] == {200: run["events"]}
    assert run["mode"] == ("open loop" if rate else "flat out")
    if rate:
        assert run["events"] + run["unsent"] == 30
    assert run["to_first_ms"]["max"] > 0 and run["to_first_ms"]["p50"] <= run["to_last_ms"]["p50"]
    assert run["cpu_a_million"]["load"] == run["cpu_a_million"]["all"]


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        ("lose", {"lost": 1}),
        ("twice", {"duplicates": 1}),
        ("twice apart", {"duplicates": 1}),
        ("wrong data", {"wrong_data": 1}),
        ("short data", {"wrong_data": 1}),
        ("alien channel", {"strays": 1, "lost": 1}),
        ("unasked", {"unexpected": 1}),
        ("withhold", {"reordered": 1}),
        ("lose all", {"lost": SUBSCRIBERS}),
        ("refuse", {"refused": 1}),
        ("refuse and deliver", {"refused": 1, "refused_but_arrived": SUBSCRIBERS}),
        ("hang up", {"unanswered": 1, "refused_but_arrived": SUBSCRIBERS}),
    ],
)
def test_what_goes_wrong_with_events_is_told(fault: str, counts: dict[str, int]) -> None:
    with misbehaving_pusher(Rules(push=every(10, fault))) as server:
        # not the last event, after which nothing would be out of order
        run = run_of(fan_out(server, rate=100, seconds=0.25), server)
    times = server.faults[fault]
    assert times > 0
    names = ("lost", "duplicates", "reordered", "wrong_data", "strays", "unexpected", "refused", "unanswered")
    names += ("refused_but_arrived", "undelivered")
    assert {name: run[name] for name in names if run[name]} == {name: count * times for name, count in counts.items()}
    assert run["held"] == SUBSCRIBERS and not clean(run)


@pytest.mark.parametrize("fault", ["split", "fragmented", "ping", "other event", "together", "stale"])
@pytest.mark.parametrize("size", [20, 120])
def test_what_a_server_may_do(fault: str, size: int) -> None:
    rules = Rules(push=every(5, fault), delay=1.0)
    with misbehaving_pusher(rules) as server:
        run = run_of(fan_out(server, rate=100, seconds=0.25, payload=size, grace=WAIT_SECONDS), server)
    assert server.faults[fault] > 0
    assert clean(run), run
    if fault == "ping":
        assert server.pongs == 2 * server.faults[fault]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("cut", "closed with 4100"),
        ("reset", "ECONNRESET"),
        ("error", "pusher:error 4301"),
        ("masked frame", "bad frame"),
    ],
)
def test_subscribers_that_are_cut_off(fault: str, why: str) -> None:
    with misbehaving_pusher(Rules(push=every(10, fault))) as server:
        run = run_of(fan_out(server, rate=100, seconds=0.25), server)
    assert run["drops"] == {why: server.faults[fault]}
    assert run["held"] == SUBSCRIBERS - server.faults[fault]
    assert run["undelivered"] > 0 and run["lost"] == 0 and not clean(run)


def test_subscribers_that_fail() -> None:
    faults = ["", "ahead", "no such application", "close", "refuse subscribe", "error subscribe", "silent subscribe"]
    faults += ["not JSON", "refuse", "garbage"]
    with misbehaving_pusher(Rules(lambda number: faults[number % len(faults)])) as server:
        body = fan_out(server, subscribers=20, timeout=1.0, rate=20.0)
        run = run_of(body, server)
    assert body["setup"]["ready"] == run["held"] == 4 and clean(run)
    assert run["expected"] == 4 * run["events"]
    assert body["setup"]["failures"] == {
        "connection_established: pusher:error 4001": 2,
        "connection_established: closed with 4001": 2,
        "subscription_succeeded: pusher:subscription_error 401": 2,
        "subscription_succeeded: pusher:error 4009": 2,
        "subscription_succeeded: no answer in time": 2,
        "subscription_succeeded: not JSON": 2,
        "upgrade: HTTP 503": 2,
        "upgrade: not HTTP": 2,
    }
    assert server.pongs == 4


def test_nobody_can_be_set_up() -> None:
    with (
        misbehaving_pusher(Rules(lambda number: "close")) as server,
        pytest.raises(BenchError, match=r"6 x .*closed with 4001"),
    ):
        fan_out(server)


@pytest.mark.parametrize(("channels", "in_flight"), [(1, 1), (1, 3), (3, 2)])
def test_flat_out_does_not_run_ahead_of_the_subscribers(channels: int, in_flight: int) -> None:
    with misbehaving_pusher(Rules(push=lambda number: "late", delay=0.02)) as server:
        body = fan_out(server, channels=channels, in_flight=in_flight, connections=16, seconds=2, grace=WAIT_SECONDS)
        run = run_of(body, server)
    assert clean(run) and run["events"] > channels * in_flight
    assert 0 < server.most_under_way <= channels * in_flight


def test_what_never_arrives_holds_up_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with misbehaving_pusher(Rules(push=lambda number: "lose all" if number < 2 else "")) as server:
        run = run_of(fan_out(server, seconds=2.6), server)
    assert run["lost"] == 2 * SUBSCRIBERS and run["delivered"] > 0


def test_events_that_can_not_be_posted() -> None:
    with misbehaving_pusher(Rules()) as server, deaf_port() as port:
        (run,) = fan_out(server, router=f"http://127.0.0.1:{port}")["runs"]
        assert run["events"] == run["unanswered"] or not run["events"]
        assert not clean(run) and "ECONNREFUSED" in run["errors"]
        with pytest.raises(BenchError, match="can't post events"):
            fan_out(server, router="http://no.such.host.invalid:1")
