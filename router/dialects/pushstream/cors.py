"""What lets pages of other origins read answers (the Fetch standard, CORS). Pure."""

from __future__ import annotations

from typing import Final

from router.dialects.pushstream.protocol import EXPLAIN, MODE, PushStreamOptions

_HEADERS: Final = f"If-Modified-Since,If-None-Match,Etag,Event-Id,Event-Type,Last-Event-Id,Authorization,{MODE}"


def cors_headers(origin: str, methods: str, options: PushStreamOptions) -> tuple[tuple[str, str], ...]:
    """Headers of an answer. origin: the request's, or "". methods: those of the path, `GET, POST`."""
    allowed = options.allowed_origins
    if not allowed:
        return ()
    if "*" in allowed:
        fields: tuple[tuple[str, str], ...] = (("Access-Control-Allow-Origin", "*"),)
    elif origin in allowed:
        fields = (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        )
    else:
        return (("Vary", "Origin"),)
    return (
        *fields,
        ("Access-Control-Allow-Methods", methods),
        ("Access-Control-Allow-Headers", _HEADERS),
        ("Access-Control-Expose-Headers", f"Etag,{EXPLAIN}"),
    )
