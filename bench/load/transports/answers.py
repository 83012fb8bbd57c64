"""Long polling: every message is a whole HTTP response, head and all, and the device asks for the next. Pure."""

from typing import Final

from bench.load.http_bytes import response_of
from bench.load.transports import as_it_is, delimited


def _end(data: bytes, start: int) -> int:
    response = response_of(data[start:] if start else data)
    return start + response.size if response is not None else 0


LONG_POLL: Final = delimited("request", None, _end, as_it_is, "closed")
