"""The channels of push stream, for the operators of the farm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

from router.common.answers import Answer
from router.core.managing import BAD_REQUEST, Refusal
from router.dialects.app_server import Context
from router.dialects.channel_book import ChannelBook, ChannelRow, ChannelState, Done, TestEvent
from router.dialects.pushstream.channels import check_id
from router.dialects.pushstream.formats import ChannelInfo
from router.dialects.pushstream.protocol import NAME, Refused, channel_address
from router.dialects.pushstream.publishing import publisher
from router.dialects.pushstream.state import state
from router.dialects.pushstream.statistics import statistics


class PushStreamBook(ChannelBook):
    """Those with subscribers, with stored messages, or not yet forgotten."""

    __slots__ = ("_core", "_publisher", "_state", "_statistics")

    def __init__(self, context: Context) -> None:
        self._core = context.core
        self._state = context.shared(state)
        self._statistics = context.shared(statistics)
        self._publisher = context.shared(publisher)

    def names(self) -> list[tuple[str, Iterable[str]]]:
        """There are no applications."""
        get = self._state.registry.get
        known = list(self._state.registry)
        others = (name for _, names in self._core.channels.all_names(NAME) for name in names if get(name) is None)
        return [("", chain((one.name for one in known), others))]

    def row(self, application: str, channel: str) -> ChannelRow:
        """No channel has members."""
        return ChannelRow(NAME, "", channel, self._state.subscribers(self._state.key(channel)))

    def address(self, application: str, channel: str) -> tuple[bytes, str]:
        """The application does not matter."""
        try:
            check_id(channel, self._state.options)
        except Refused as refused:
            raise Refusal(BAD_REQUEST, refused.answer.text) from None
        return channel_address(channel), ""

    def look(self, key: bytes, application: str, channel: str, done: Callable[[ChannelState | None], None]) -> None:
        """As in the dialect's own statistics."""

        def known(found: list[ChannelInfo] | None) -> None:
            if found is None:
                done(None)
            elif not found:
                done(ChannelState(NAME, "", channel, False, 0))
            else:
                done(self._shown(found[0]))

        self._statistics.info([channel], known)

    def _shown(self, info: ChannelInfo) -> ChannelState:
        shown = ChannelState(NAME, "", info.channel, True, info.subscribers, published=info.published_messages)
        if self._state.options.store_messages:
            shown.stored, shown.position = info.stored_messages, info.published_messages
        return shown

    def publish(self, application: str, channel: str, event: TestEvent, done: Done) -> None:
        """The event's name is its type."""

        def published(refusal: Answer | None, infos: list[ChannelInfo]) -> None:
            done(*((200, "") if refusal is None else (refusal.status, refusal.text)))

        self._publisher.publish([channel], event.data, published, event_type=event.event)
