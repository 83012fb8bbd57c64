"""`trace.*`: OpenTelemetry spans of pushes, from their request to the socket of their device.

    PUT /update/                  the request, for as long as it has no answer; its parent is the sender's traceparent
      push                        one message, until its worker has written it, or will not
        commit                    until it is durable
        deliver                   until its worker has reported that it is in the device's socket

Only requests that are followed cost anything: those whose traceparent says so, and of those without one a share. The
spans are sent by a thread of the library, from a queue with an end; where that fails, spans are lost and a line says
so. Of OpenTelemetry nothing is imported before the first `Tracer` is made.
"""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from router import __version__
from router.common import logs
from router.common.rate_table import RateTable
from router.common.trace_settings import TraceOptions
from router.core.push_watch import Watched
from router.http.message import Request, Response
from router.http.routes import Reply

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span

_DELAY_MS: Final = 1000
"""So long spans wait for others, to be sent together."""
_SERVER_ERROR: Final = 500
_BURST_S: Final = 10.0


class Followed:
    """The request of a trace, as `Origin.trace` has it."""

    __slots__ = ("context", "span", "traceparent")

    def __init__(self, span: Span | None, context: Any, traceparent: str) -> None:
        """span: None where the request is another router's."""
        self.span = span
        self.context = context
        self.traceparent = traceparent


class _PushSpans:
    """The spans of one push that have not ended."""

    __slots__ = ("commit", "deliver", "push")

    def __init__(self, push: Span, commit: Span, deliver: Span) -> None:
        self.push = push
        self.commit: Span | None = commit
        self.deliver: Span | None = deliver


class Tracer:
    """Makes spans. It is a `PushWatch`."""

    def __init__(self, options: TraceOptions, router: int, chance: Callable[[], float] = random.random) -> None:
        """router: the number of this one."""
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        class Reporting:
            """The library's exporter, whose failures are lines of our log. It is called in a thread."""

            def __init__(self, endpoint: str, timeout: float) -> None:
                self._exporter = OTLPSpanExporter(endpoint, timeout=timeout)
                self._told = 0
                self.taken = 0

            def export(self, spans: Any) -> SpanExportResult:
                """Send them."""
                self.taken += len(spans)
                if lost := queue.lost - self._told:
                    self._told += lost
                    logs.limited(
                        "trace.not_sent",
                        per="queue",
                        spans=lost,
                        endpoint=options.endpoint,
                        error="trace.queue is full",
                    )
                try:
                    result = self._exporter.export(spans)
                except Exception as error:
                    logs.limited("trace.not_sent", spans=len(spans), endpoint=options.endpoint, error=repr(error))
                    return SpanExportResult.FAILURE
                if result is not SpanExportResult.SUCCESS:
                    logs.limited("trace.not_sent", spans=len(spans), endpoint=options.endpoint)
                return result

            def shutdown(self) -> None:
                """Send no more."""
                self._exporter.shutdown()

            def force_flush(self, timeout_millis: int = 30_000) -> bool:
                """Nothing waits here."""
                return True

        class Queue(BatchSpanProcessor):  # type: ignore[misc, unused-ignore]
            """The library's queue. Where it is full that drops the oldest without a word: here the newest are, and
            counted."""

            given = lost = 0

            def on_end(self, span: ReadableSpan) -> None:
                """Have it sent."""
                if self.given - exporter.taken >= options.queue:
                    self.lost += 1
                else:
                    self.given += 1
                    super().on_end(span)

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # else a line, or several, a second
        about = {
            "service.name": "farm",
            "service.version": __version__,
            "service.instance.id": f"router[{router}]@{socket.gethostname()}",
        }
        self._provider = TracerProvider(ALWAYS_ON, Resource.create(about), shutdown_on_exit=False)
        exporter = Reporting(options.endpoint, options.timeout)
        queue = Queue(exporter, max_queue_size=options.queue, schedule_delay_millis=_DELAY_MS)
        self._provider.add_span_processor(queue)
        self._tracer = self._provider.get_tracer("farm", __version__)
        self._share = options.share
        self._chance = chance
        self._rate = RateTable(options.per_second, options.per_second * _BURST_S, 1)
        self._extract = TraceContextTextMapPropagator().extract
        self._server = trace.SpanKind.SERVER
        self._span_of, self._with_span = trace.get_current_span, trace.set_span_in_context
        self._error = trace.Status(trace.StatusCode.ERROR)

    # ------------------------------------------------------------------ requests

    def follows(self, request: Request, path: str) -> Followed | None:
        """Begin the trace of a request, if it is to be followed. path: of its route."""
        now = time.monotonic()
        if self._rate.wait(None, now):
            return None
        context = None
        if b"traceparent" in request.headers:
            named = {name: request.headers.get(name.encode(), b"") for name in ("traceparent", "tracestate")}
            context = self._extract({name: value.decode("latin-1") for name, value in named.items() if value})
            parent = self._span_of(context).get_span_context()
            if parent.is_valid and not parent.trace_flags.sampled:
                return None
            if not parent.is_valid:  # malformed: as if there were none (W3C Trace Context 3.2)
                context = None
        if context is None and self._chance() >= self._share:
            return None
        self._rate.take(None, now)
        method = request.method.decode("latin-1")
        span = self._tracer.start_span(f"{method} {path}", context, self._server)
        span.set_attributes({"http.request.method": method, "http.route": path, "client.address": request.address})
        if request.pending is not None and request.pending.request_id:
            span.set_attribute("http.request.header.x-request-id", [request.pending.request_id])
        name = span.get_span_context()
        traceparent = f"00-{name.trace_id:032x}-{name.span_id:016x}-01"
        return Followed(span, self._with_span(span), traceparent)

    def elsewhere(self, traceparent: str) -> Followed:
        """A request that another router follows, by its name there."""
        return Followed(None, self._extract({"traceparent": traceparent}), traceparent)

    def replying(self, followed: Followed, reply: Reply) -> Reply:
        """What is to be called with the answer, in place of this."""

        span = followed.span
        assert span is not None

        def replied(response: Response) -> None:
            reply(response)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= _SERVER_ERROR:
                span.set_status(self._error)
            span.end()

        return replied

    # ------------------------------------------------------------------ as `PushWatch`

    def begins(self, push: Watched) -> None:
        """As `PushWatch.begins`."""
        if push.origin is None or push.origin.trace is None:
            return
        if self._rate.take(None, time.monotonic()):  # one request may bring thousands
            return
        start, now = self._tracer.start_span, time.time_ns()
        span = start("push", push.origin.trace.context, start_time=now)
        about = {"farm.device": push.device.hex(), "farm.slot": push.slot.encode("ascii", "backslashreplace").decode()}
        span.set_attributes({**about, "farm.version": str(push.version), "farm.ttl": push.ttl, "farm.size": push.size})
        inside = self._with_span(span)
        spans = [start(name, inside, start_time=now) for name in ("commit", "deliver")]
        push.spans = _PushSpans(span, *spans)

    def accepted(self, push: Watched) -> None:
        """As `PushWatch.accepted`."""
        if (spans := push.spans) is not None and spans.commit is not None:
            spans.commit.end()
            spans.commit = None
            self._look(push, spans)

    def refused(self, push: Watched, why: str) -> None:
        """As `PushWatch.refused`."""
        if (spans := push.spans) is not None:
            spans.push.set_status(self._error)
            spans.push.set_attribute("farm.refused", why)
            push.spans = None
            for span in (spans.commit, spans.deliver, spans.push):
                if span is not None:
                    span.end()

    def delivered(self, push: Watched) -> None:
        """As `PushWatch.delivered`."""
        self._resulted(push, True)

    def undelivered(self, push: Watched) -> None:
        """As `PushWatch.undelivered`."""
        self._resulted(push, False)

    def _resulted(self, push: Watched, written: bool) -> None:
        if (spans := push.spans) is not None and spans.deliver is not None:
            spans.push.set_attribute("farm.delivered", written)
            spans.deliver.set_attribute("farm.delivered", written)
            spans.deliver.end()
            spans.deliver = None
            self._look(push, spans)

    def _look(self, push: Watched, spans: _PushSpans) -> None:
        if spans.commit is None and spans.deliver is None:
            spans.push.end()
            push.spans = None

    def acked(self, device: bytes, updates: Iterable[tuple[str, int]]) -> None:
        """As `PushWatch.acked`: nothing."""

    def gone(self, why: str, device: bytes, slot: str, version: int) -> None:
        """As `PushWatch.gone`: nothing."""

    def close(self) -> None:
        """Send what waits. Blocks, `trace.timeout` at most, or a little longer."""
        self._provider.shutdown()
