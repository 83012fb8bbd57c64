"""The settings of traces, and what is wrong with them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import ClassVar, Final

from router.common import option_texts as texts
from router.common.options import Section, Settings, option

_EXTRA: Final = "connection-farm[trace]"
_MODULES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def _url_or_none(text: str) -> str:
    return texts.url(text) if text else text


@dataclass(frozen=True)
class TraceOptions(Section):
    SECTION: ClassVar[str] = "trace"
    HELP: ClassVar[str] = (
        f"OpenTelemetry traces of pushes, from the request to the device's socket. They need `pip install '{_EXTRA}'`."
    )

    endpoint: str = option(
        "",
        "where spans are sent by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; empty: there are none",
        expects="a URL with http or https, or nothing",
        check=_url_or_none,
    )
    share: float = option(
        0.01, "of the requests that bring no traceparent so many are followed; others as that says", ge=0, le=1
    )
    queue: int = option(
        2048, "spans that may wait to be sent; beyond, further ones are lost", unit="spans", ge=512, le=1_000_000
    )
    per_second: float = option(
        100.0,
        "requests, and pushes in them, that each router follows at most, and in a burst those of ten seconds: a "
        "sender's traceparent may ask for it with each request",
        unit="requests and pushes",
        ge=0.1,
    )
    timeout: float = option(5.0, "how long the receiver may take for what it is sent", unit="s", ge=0.1)


def problems(settings: Settings) -> list[str]:
    """A line if traces are wanted and cannot be made."""
    if not settings.get(TraceOptions).endpoint:
        return []
    for name in _MODULES:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return [f"trace.endpoint: OpenTelemetry is not installed: `make tools`, or pip install '{_EXTRA}'"]
    return []
