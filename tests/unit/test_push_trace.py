"""Which requests are followed, what becomes of spans of pushes that are refused, and that nothing is loaded while
traces are off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.farm_command import ROOT, TIMEOUT_S, environ
from support.otlp_collector import Collector, running_collector

from router.common.log_forms import FIELDS
from router.common.trace_settings import TraceOptions
from router.core.push_watch import Watched
from router.core.pushes import REFUSED_FULL
from router.core.scope import Origin
from router.http.message import Request, Response
from router.push_trace import Tracer

A = b"a" * 16
SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


def request(*headers: tuple[bytes, bytes]) -> Request:
    return Request(b"PUT", b"/update/secret", b"", dict(headers), b"")


@pytest.mark.parametrize(
    ("traceparent", "chance", "followed"),
    [
        (None, 0.49, True),
        (None, 0.51, False),
        (SAMPLED, 0.99, True),
        (SAMPLED[:-1] + b"0", 0.0, False),
        (b"", 0.49, True),
        (b"00-nonsense", 0.49, True),
        (b"00-nonsense", 0.51, False),
        (b"00-" + b"0" * 32 + SAMPLED[35:], 0.51, False),
        (b"\xff" * 55, 0.51, False),
        (SAMPLED + b", " + SAMPLED, 0.51, False),
    ],
)
def test_who_is_followed(traceparent: bytes | None, chance: float, followed: bool, collector: Collector) -> None:
    tracer = Tracer(TraceOptions(collector.url, 0.5), 0, lambda: chance)
    headers = () if traceparent is None else ((b"traceparent", traceparent),)
    assert (tracer.follows(request(*headers), "/update/") is not None) == followed
    tracer.close()


def test_whoever_asks_for_it_no_more_are_followed_than_may_be(collector: Collector) -> None:
    tracer = Tracer(TraceOptions(collector.url, per_second=0.1), 0)
    asked = [tracer.follows(request((b"traceparent", SAMPLED)), "/update/") for _ in range(3)]
    assert [followed is not None for followed in asked] == [True, False, False]
    tracer.close()


def test_of_a_request_with_many_pushes_no_more_are_followed_than_may_be(collector: Collector) -> None:
    tracer = Tracer(TraceOptions(collector.url, 1.0, per_second=0.2), 0)  # two at once
    origin = Origin("", tracer.follows(request((b"traceparent", SAMPLED)), "/v1/push"))
    pushes = [Watched(tracer, origin, A, str(n), 1, 60, 5, lambda outcome: None, False) for n in range(10)]
    for push in pushes:
        tracer.begins(push)
    assert [push.spans is not None for push in pushes] == [True] + [False] * 9
    pushes[-1](REFUSED_FULL)
    tracer.close()


def test_a_push_that_is_refused_has_failed_and_its_spans_end(collector: Collector) -> None:
    tracer = Tracer(TraceOptions(collector.url, 1.0), 0)
    followed = tracer.follows(request((b"traceparent", SAMPLED)), "/update/")
    assert followed is not None
    answers: list[Response] = []
    reply = tracer.replying(followed, answers.append)
    push = Watched(tracer, Origin("", followed), b"d" * 16, "\ud800", 2**63, 60, 5, lambda outcome: None, False)
    tracer.begins(push)
    push(REFUSED_FULL)
    push.sent(True)  # after all
    reply(Response(503))
    tracer.close()
    spans = collector.spans(SAMPLED[3:35].decode())
    assert spans.keys() == {"PUT /update/", "push", "commit", "deliver"}
    assert {name for name, span in spans.items() if span.failed} == {"PUT /update/", "push"}
    assert spans["push"].attributes["farm.refused"] == "inbox full"
    assert [answer.status for answer in answers] == [503]
    assert push.spans is None


def test_spans_for_which_the_queue_has_no_room_are_told_of(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = Tracer(TraceOptions(collector.url, 1.0, queue=512, per_second=1000, timeout=TIMEOUT_S), 0)
    with collector.standing_still():
        for _ in range(1600):  # of which 512 wait, and as many are on their way
            followed = tracer.follows(request(), "/update/")
            assert followed is not None
            tracer.replying(followed, lambda response: None)(Response(200))
    tracer.close()
    told = [getattr(record, FIELDS) for record in caplog.records if record.message == "trace.not_sent"]
    assert told and all(fields["error"] == "trace.queue is full" and fields["spans"] > 0 for fields in told)


def test_a_push_of_no_request_that_is_followed_has_no_spans(collector: Collector) -> None:
    tracer = Tracer(TraceOptions(collector.url, 1.0), 0)
    for origin in (None, Origin("r")):
        push = Watched(tracer, origin, b"d" * 16, "s", 1, 60, 5, lambda outcome: None, False)
        tracer.begins(push)
        tracer.accepted(push)
        tracer.delivered(push)
        assert push.spans is None
    tracer.close()


def test_nothing_is_loaded_while_traces_are_off() -> None:
    script = (
        "import sys, farm.supervisor.supervisor, farm.worker.main, router.process\n"
        "from farm.sections import all_sections\n"
        "from router.common.options import defaults\n"
        "from router.watching import Watching\n"
        "assert Watching.of(defaults(all_sections()), 0, None) is None\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('opentelemetry', 'google', 'requests')])\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout == "[]\n"
