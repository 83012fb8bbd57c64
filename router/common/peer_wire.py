"""Envelopes between routers as bytes (`router.common.messages.peers`): msgpack, held against the types where they are
decoded. A whole envelope is refused: another router makes none that is malformed, unless it is of another version."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from router.common.messages import MessageError
from router.common.messages.peers import LOWEST_PEER_PROTOCOL, PEER_PROTOCOL, OfAsker, OfOwner

PEER_VERSIONS: Final = range(LOWEST_PEER_PROTOCOL, PEER_PROTOCOL + 1)
"""Those that are spoken."""
encode: Final = msgspec.msgpack.Encoder().encode
_of_asker: Final = msgspec.msgpack.Decoder(OfAsker)
_of_owner: Final = msgspec.msgpack.Decoder(OfOwner)


def of_asker(data: bytes) -> OfAsker:
    """Raises: MessageError."""
    envelope: OfAsker = _decoded(_of_asker, data)
    return envelope


def of_owner(data: bytes) -> OfOwner:
    """Raises: MessageError."""
    envelope: OfOwner = _decoded(_of_owner, data)
    return envelope


def _decoded(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MessageError(f"no envelope of another router: {error}") from error
