"""How what a server sends becomes messages: one `Transport` for each way in which a device can be connected. It keeps
nothing: what is not complete yet stays with the caller, and only while it is not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.load import frames
from bench.load.frames import TEXT, Message


@dataclass(frozen=True, slots=True)
class Transport:
    """Bytes in, messages out, by these functions:

    `opening`: what a report calls the time until the server has answered the request.
    `head_end`: where messages begin after the server's answer to the request, 0 while the answer is not complete;
      raises PeerError for a refusal. None: there is no answer before the first message.
    `single`: the payload, if the data is exactly one whole message in the form that servers send nearly always.
    `split`: the whole messages in the data, and the rest. `parts` carries what an unfinished message has so far from
      call to call; the caller keeps it for the connection. Raises PeerError.
    `end`: where the message that begins at a position ends, if it is one in the usual form and whole; otherwise 0.
    `payload`: what stands in a message of which `end` knew the end.
    `pong`: what to send for a ping with this payload.
    `closing`: what to send for a close with this payload, and why the connection ended, for a report.
    `broken_off`: the same where it ended without a close.
    """

    opening: str
    head_end: Callable[[bytes], int] | None
    single: Callable[[bytes], bytes | None]
    split: Callable[[bytes, list[bytes]], tuple[list[Message], bytes]]
    end: Callable[[bytes, int], int]
    payload: Callable[[bytes], bytes]
    pong: Callable[[bytes], bytes]
    closing: Callable[[bytes], tuple[bytes, str]]
    broken_off: str


def delimited(
    opening: str,
    head_end: Callable[[bytes], int] | None,
    end: Callable[[bytes, int], int],
    payload: Callable[[bytes], bytes],
    broken_off: str,
    ended: str = "closed",
) -> Transport:
    """One whose messages follow each other, each as `end` finds it, and that has no pings. `ended`: why the connection
    ended that the server has closed."""

    def single(data: bytes) -> bytes | None:
        return payload(data) if end(data, 0) == len(data) else None

    def split(data: bytes, parts: list[bytes]) -> tuple[list[Message], bytes]:
        found: list[Message] = []
        at = 0
        while at < len(data) and (behind := end(data, at)):
            found.append(Message(TEXT, payload(data[at:behind])))
            at = behind
        return found, data[at:]

    def pong(payload: bytes) -> bytes:
        return b""

    def closing(payload: bytes) -> tuple[bytes, str]:
        return b"", ended

    return Transport(opening, head_end, single, split, end, payload, pong, closing, broken_off)


def as_it_is(message: bytes) -> bytes:
    """The payload of a message that is nothing else."""
    return message


def _pong(payload: bytes) -> bytes:
    return frames.client_frame(payload, frames.PONG)


def _closing(payload: bytes) -> tuple[bytes, str]:
    code = int.from_bytes(payload[:2], "big") or 1005
    return frames.client_frame(payload[:2], frames.CLOSE), f"closed with {code}"


WEBSOCKET: Final = Transport(
    "upgrade",
    frames.upgrade_end,
    frames.single_text,
    frames.split_frames,
    frames.message_end,
    frames.payload_of,
    _pong,
    _closing,
    "closed without a close frame",
)
