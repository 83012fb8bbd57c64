"""To which of several routers a message of a worker goes: what it tells of that. `farm.worker.routes` picks the router.

| it has | it goes to |
|---|---|
| a key, which `KEYS` gets from it | the router that owns the key |
| a number, which `NUMBERS` gets from it | the router that gave the number, or that a call of this number went to |
| neither, `EACH` | it is made for each router anew, of what belongs there |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from router.common.messages.authorise import Authorise
from router.common.messages.to_router import (
    Ack,
    Announce,
    AnnounceChannels,
    Attach,
    Counted,
    CountsSent,
    Detach,
    Drop,
    Fetch,
    Happened,
    Invoke,
    PresenceJoin,
    PresenceLeave,
    Publish,
    ReadLog,
    Record,
    Result,
    SetAdd,
    SetRemove,
    Subscribe,
    Unsubscribe,
    Withdraw,
)
from router.common.messages.values import channel_key, label_parts

_device = attrgetter("device")
_channel = attrgetter("channel")
_key = attrgetter("key")


def _of_label(message: Happened) -> bytes:
    return channel_key(*label_parts(message.label))


def _of_question(question: Authorise) -> bytes:
    # The same router each time: it asks once what many ask, and remembers the answer.
    return question.uri.partition("?")[0].encode("utf-8", "replace")


KEYS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    Attach: _device,
    Detach: _device,
    Fetch: _device,
    Drop: _device,
    Ack: _device,
    Subscribe: _channel,
    Unsubscribe: _channel,
    ReadLog: _channel,
    Publish: _channel,
    Counted: _channel,
    PresenceJoin: _channel,
    PresenceLeave: _channel,
    Happened: _of_label,
    Record: _key,
    SetAdd: _key,
    SetRemove: _key,
    Invoke: _key,
    Authorise: _of_question,
}
NUMBERS: Final[Mapping[type, Callable[[Any], int]]] = {
    Result: attrgetter("number"),
    CountsSent: attrgetter("number"),
    Withdraw: attrgetter("number"),
}
EACH: Final = frozenset((Announce, AnnounceChannels))
