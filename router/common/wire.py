"""Envelopes of the link as bytes, in each version that is spoken; and all that differs between the versions.

The form is msgpack. Bytes are decoded and checked in one step. Where that fails the envelope is looked at once more,
slowly, so that in a batch a message that is none of ours costs that message and not the others.

What version 7 has otherwise
----------------------------
- There is no INSPECT, no LET_GO and no LEAVE: such a worker is not asked about its connections, and is lost when it
  ends.

What version 6 has otherwise, besides
-------------------------------------
- There is no ANNOUNCED: a router does not get to know when such a worker has announced all that it holds.
- There is no BEGIN and no PLACEMENTS, and BEAT and the router's batch have no number: what is lost with a connection
  does not come to light. Over a Unix socket nothing is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from router.common import messages as m

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode
_of_worker: Final = msgspec.msgpack.Decoder(m.OfWorker)
_of_router: Final = msgspec.msgpack.Decoder(m.OfRouter)
_AS_THEY_ARE: Final = (bytes,)  # without this a text would be taken for bytes in base64

_WORKER_BATCH: Final = 2
_BEAT: Final = 3
_ROUTER_BATCH: Final = 13
_CALL: Final = 51


class Wire:
    """One version. Not for use by two threads at once."""

    __slots__ = ("version",)

    def __init__(self, version: int) -> None:
        self.version = version

    def encode(self, envelope: m.Envelope) -> bytes:
        """Raises: an Exception of some kind if there is something in it that msgpack has not."""
        return _encode(envelope if self.version >= m.COUNTED else _older(envelope))

    def of_worker(self, data: bytes, limit: int) -> m.OfWorker:
        """An envelope that a router has received.

        Raises: MessageError if it is none within `limit` bytes.
        """
        envelope: m.OfWorker = self._decoded(data, limit, _of_worker, m.OfWorker, m.ToRouter)
        return envelope

    def of_router(self, data: bytes, limit: int) -> m.OfRouter:
        """An envelope that a worker, or the supervisor, has received.

        Raises: MessageError if it is none within `limit` bytes.
        """
        envelope: m.OfRouter = self._decoded(data, limit, _of_router, m.OfRouter, m.ToWorker)
        return envelope

    def _decoded(
        self, data: bytes, limit: int, decoder: msgspec.msgpack.Decoder[Any], envelopes: Any, messages: Any
    ) -> Any:
        if len(data) > limit:
            raise m.MessageError(f"{len(data)} bytes are more than the limit of {limit}")
        try:
            return decoder.decode(data)
        except Exception:  # of many kinds; what it is comes to light now
            return self._apart(data, envelopes, messages)

    def _apart(self, data: bytes, envelopes: Any, messages: Any) -> Any:
        """The envelope first, then message by message."""
        try:
            raw = _decode(data)
        except Exception as error:
            raise m.MessageError(f"not msgpack: {error!r}") from error
        if type(raw) is not list or not raw:
            raise m.MessageError("an envelope is an array that begins with its kind")
        inside: list[Any] = []
        if raw[0] in (_WORKER_BATCH, _ROUTER_BATCH) and len(raw) > 2 and type(raw[2]) is list:
            inside, raw[2] = raw[2], []
        envelope = _converted(raw, envelopes)
        if inside:
            envelope.messages.extend(self._message(message, messages) for message in inside)
        return envelope

    def _message(self, raw: Any, messages: Any) -> Any:
        try:
            return _converted(raw, messages)
        except m.MessageError as error:
            return m.Malformed(str(error), _number(raw))


def common_version(ready: m.Ready, versions: range) -> int | None:
    """The newest version of these that a worker speaks, too."""
    version = min(ready.highest, versions[-1])
    return version if version >= max(ready.lowest, versions[0]) else None


def reply_payload(request: type[m.Request], payload: Any) -> Any:
    """What came with the OK to a request, as the type that this request is replied to with.

    Raises: MessageError if it is something else.
    """
    if request.REPLY is None:
        return None
    try:
        return msgspec.convert(payload, request.REPLY, builtin_types=_AS_THEY_ARE)
    except (msgspec.ValidationError, RecursionError) as error:
        raise m.MessageError(f"reply to {request.__name__}: {error}") from error


def _older(envelope: m.Envelope) -> Any:
    """An envelope as version 6 has it."""
    if isinstance(envelope, m.RouterBatch):
        return [_ROUTER_BATCH, envelope.confirmed, envelope.messages, envelope.unkept]
    return [_BEAT, envelope.snapshot] if isinstance(envelope, m.Beat) else envelope


def _converted(raw: Any, types: Any) -> Any:
    try:
        return msgspec.convert(raw, types, builtin_types=_AS_THEY_ARE)
    except (msgspec.ValidationError, RecursionError) as error:
        kind = raw[0] if type(raw) is list and raw and type(raw[0]) is int else None
        raise m.MessageError(f"kind {kind}: {error}") from error


def _number(raw: Any) -> int | None:
    """Of the call, if the message is one, however malformed the rest of it is."""
    if type(raw) is list and len(raw) > 1 and type(raw[0]) is type(raw[1]) is int:
        return raw[1] if raw[0] == _CALL and 0 <= raw[1] < 2**63 else None
    return None


ANNOUNCED: Final = 7
"""The version from which on there is ANNOUNCED."""
VERSIONS: Final = range(m.LOWEST_PROTOCOL, m.PROTOCOL + 1)
"""Those that are spoken."""
WIRES: Final = {version: Wire(version) for version in VERSIONS}
NEWEST: Final = WIRES[m.PROTOCOL]
