"""Envelopes between routers as bytes (`router.common.messages.peers`): msgpack, held against the types where they are
decoded. A whole envelope is refused: another router makes none that is malformed, unless it is of another version."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from router.common.messages import MessageError
from router.common.messages.peers import LOWEST_PEER_PROTOCOL, PEER_PROTOCOL, OfAsker, OfOwner
from router.common.settings import LinkOptions

PEER_VERSIONS: Final = range(LOWEST_PEER_PROTOCOL, PEER_PROTOCOL + 1)
"""Those that are spoken."""
_BATCH_BYTES: Final = 1_048_576
encode: Final = msgspec.msgpack.Encoder().encode
_of_asker: Final = msgspec.msgpack.Decoder(OfAsker)
_of_owner: Final = msgspec.msgpack.Decoder(OfOwner)


def batch_bytes(options: LinkOptions) -> int:
    """So many bytes of operations or answers are put into one envelope, or one of them that is longer. The other end
    would close the connection over an envelope longer than `link.max_message_bytes`."""
    return min(_BATCH_BYTES, options.max_message_bytes // 2)


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
