"""Long polling: every message is a whole HTTP response, head and all, and the device asks for the next. Pure."""

from typing import Final

from bench.load.frames import TEXT, Message
from bench.load.http_bytes import response_of
from bench.load.transports import Transport


def _end(data: bytes, start: int) -> int:
    response = response_of(data[start:] if start else data)
    return start + response.size if response is not None else 0


def _payload(response: bytes) -> bytes:
    return response


def _single(data: bytes) -> bytes | None:
    return data if _end(data, 0) == len(data) else None


def _split(data: bytes, parts: list[bytes]) -> tuple[list[Message], bytes]:
    found: list[Message] = []
    at = 0
    while at < len(data) and (end := _end(data, at)):
        found.append(Message(TEXT, data[at:end]))
        at = end
    return found, data[at:]


def _pong(payload: bytes) -> bytes:
    return b""


def _closing(payload: bytes) -> tuple[bytes, str]:
    return b"", "closed"


LONG_POLL: Final = Transport("request", None, _single, _split, _end, _payload, _pong, _closing, "closed")
