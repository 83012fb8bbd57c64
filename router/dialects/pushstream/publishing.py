"""Messages on their way to the owners of their channels: of app servers, of subscribers that may publish, of queues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from router.common import messages as m
from router.common.answers import Answer
from router.common.position import MAX_EVENT_ID
from router.dialects.app_server import Context
from router.dialects.pushstream.formats import ChannelInfo
from router.dialects.pushstream.operations import Outcome, Put
from router.dialects.pushstream.owner import owner
from router.dialects.pushstream.protocol import (
    BAD_EVENT,
    EMPTY_POST,
    NOT_KEPT,
    ONLY_INTERNAL,
    PUBLISHERS,
    TOO_LONG,
    channel_address,
)
from router.dialects.pushstream.state import state

Published = Callable[[Answer | None, list[ChannelInfo]], None]
"""Called once, when all channels have the message: where messages are stored, durably. What refuses it, if anything,
and the numbers of the channels if they were wanted."""

_REFUSALS: Final = {row.text: row for row in PUBLISHERS.rows if isinstance(row, Answer) and row.text}


class Publisher:
    """Publishes to channels of any owners."""

    def __init__(self, context: Context) -> None:
        self._options = context.shared(state).options
        self._operations = context.core.operations
        context.shared(owner)

    def publish(
        self,
        names: Sequence[str],
        text: str,
        done: Published,
        *,
        event_id: str = "",
        event_type: str = "",
        info: bool = False,
    ) -> None:
        """Publish a message to channels, each named once; those that there are not are made. Of several owners some
        may have done so though another refuses."""
        refusal = self._refusal(names, text, event_id, event_type)
        if refusal is not None:
            done(refusal, [])
            return
        shares = self._operations.by_owner(names, channel_address)

        def published(answers: list[tuple[int, Any]]) -> None:
            infos: dict[str, ChannelInfo] = {}
            refusal: Answer | None = None
            for status, outcome in answers:
                if status != m.OK:
                    refusal = NOT_KEPT
                    continue
                assert isinstance(outcome, Outcome)
                refusal = refusal or _REFUSALS.get(outcome.refusal)
                infos.update((found.channel, found) for found in outcome.infos)
            done(refusal, [infos[name] for name in names if name in infos] if infos else [])

        asked = [(key, Put(share, text, event_id, event_type, info)) for key, share in shares]
        self._operations.at_each(asked, published)

    def _refusal(self, names: Sequence[str], text: str, event_id: str, event_type: str) -> Answer | None:
        if not text:
            return EMPTY_POST
        if self.is_too_long(text):
            return TOO_LONG
        if len(event_id) > MAX_EVENT_ID or len(event_type) > MAX_EVENT_ID or "\0" in event_id + event_type:
            return BAD_EVENT
        if self._options.events_channel_id in names:
            return ONLY_INTERNAL
        return None

    def is_too_long(self, text: str) -> bool:
        """Whether no message may be this text."""
        # A character has at most 4 bytes: nearly no message need be encoded to be measured.
        most = self._options.max_message_bytes
        return len(text) * 4 > most and len(text.encode()) > most


def publisher(context: Context) -> Publisher:
    """That of a router, for `Context.shared`."""
    return Publisher(context)
