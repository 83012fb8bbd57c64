"""A receiver of OTLP over HTTP: takes spans as any collector does, in protobuf, and can be made to fail."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Span(NamedTuple):
    """One span, with the attributes of its resource among its own."""

    trace: str
    id: str
    parent: str
    name: str
    begun: int
    ended: int
    kind: int
    failed: bool
    attributes: dict[str, Any]


class Collector:
    """What has been received. status: what it answers from now on."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/traces"
        self.status = 200
        self.requests = 0
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for of_resource in request.resource_spans:
                about = values(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    self._spans += (_span(span, about) for span in of_scope.spans)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It answers nothing meanwhile."""
        with self._lock:
            yield

    def spans(self, trace: str = "") -> dict[str, Span]:
        """Those of a trace by their names; "": all, the last of each name."""
        with self._lock:
            return {span.name: span for span in self._spans if not trace or span.trace == trace}


def values(attributes: Any) -> dict[str, Any]:
    found = {}
    for pair in attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = [one.string_value for one in value.values] if kind == "array_value" else value
    return found


def _span(span: Any, about: dict[str, Any]) -> Span:
    return Span(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.kind,
        span.status.code == 2,
        about | values(span.attributes),
    )


@contextmanager
def running_collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            coding = self.headers.get("content-encoding", "")
            if coding:
                body = gzip.decompress(body) if coding == "gzip" else zlib.decompress(body)
            assert self.headers["content-type"] == "application/x-protobuf"
            collector.requests += 1
            if collector.status == 200:
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
