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

from router.common.messages import to_router as to
from router.common.messages.authorise import Authorise
from router.common.messages.values import channel_key, label_parts

_device = attrgetter("device")
_channel = attrgetter("channel")
_key = attrgetter("key")


def _of_label(message: to.Happened) -> bytes:
    return channel_key(*label_parts(message.label))


def _of_question(question: Authorise) -> bytes:
    # The same router each time: it asks once what many ask, and remembers the answer.
    return question.uri.partition("?")[0].encode("utf-8", "replace")


KEYS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    to.Attach: _device,
    to.Detach: _device,
    to.Fetch: _device,
    to.Drop: _device,
    to.Ack: _device,
    to.Subscribe: _channel,
    to.Unsubscribe: _channel,
    to.ReadLog: _channel,
    to.Publish: _channel,
    to.Counted: _channel,
    to.PresenceJoin: _channel,
    to.PresenceLeave: _channel,
    to.Happened: _of_label,
    to.Record: _key,
    to.SetAdd: _key,
    to.SetRemove: _key,
    to.Invoke: _key,
    Authorise: _of_question,
}
NUMBERS: Final[Mapping[type, Callable[[Any], int]]] = {
    to.Result: attrgetter("number"),
    to.CountsSent: attrgetter("number"),
    to.Withdraw: attrgetter("number"),
    to.Inspected: attrgetter("number"),
}
EACH: Final = frozenset((to.Announce, to.AnnounceChannels))
