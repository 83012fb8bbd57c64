"""The keys of gopush2, for the operators of the farm.

Those that devices are connected with can be listed where routers know them: with `gopush2.list_keys`, or where they
count the devices of a key. Any key can be looked at by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from router.common import messages as m
from router.core.managing import BAD_REQUEST, Refusal
from router.dialects.app_server import Context
from router.dialects.channel_book import ChannelBook, ChannelRow, ChannelState, Done, TestEvent
from router.dialects.gopush2.app_server import AppSide
from router.dialects.gopush2.protocol import (
    CHANNELS,
    NAME,
    SUBSCRIBERS,
    Gopush2Options,
    Present,
    channel_address,
    deadline_of,
    subscribers_address,
)
from router.http.message import Response
from router.store.base import LogSize

_STATUS: Final = {3: 404, 5: 503}
"""By `ret`: what its answers with 200 mean."""


class Gopush2Book(ChannelBook):
    """Those of one router."""

    __slots__ = ("_app_side", "_core", "_options", "_unix_time")

    def __init__(self, context: Context) -> None:
        self._core = context.core
        self._options = context.settings.get(Gopush2Options)
        self._unix_time = context.unix_time
        self._app_side = context.shared(AppSide)

    @property
    def _listed_as(self) -> str:
        """The application of the channels that stand for keys in lists."""
        return SUBSCRIBERS if self._options.max_subscriber_per_key else ""

    def names(self) -> list[tuple[str, Iterable[str]]]:
        """There are no applications."""
        found = self._core.channels.all_names(NAME)
        return [("", names) for application, names in found if application == self._listed_as]

    def row(self, application: str, channel: str) -> ChannelRow:
        """No channel has members: what stands there for a limit are devices."""
        key = subscribers_address(channel) if self._listed_as else channel_address(channel)
        there = self._core.channels.get(key)
        return ChannelRow(NAME, "", channel, 0 if there is None else there.count)

    def address(self, application: str, channel: str) -> tuple[bytes, str]:
        """The application does not matter."""
        if not 0 < len(channel.encode()) <= self._options.max_key_bytes:
            raise Refusal(BAD_REQUEST, f"a key has 1 to {self._options.max_key_bytes} bytes")
        return channel_address(channel), ""

    def look(self, key: bytes, application: str, channel: str, done: Callable[[ChannelState | None], None]) -> None:
        """The channel is there until its deadline, with or without devices."""
        state = ChannelState(NAME, "", channel, False, None)

        def found(status: int, record: bytes | None) -> None:
            if status != m.OK:
                done(None)
                return
            left = 0 if record is None else deadline_of(record) - int(self._unix_time())
            state.exists = left > 0
            state.expires_in = max(left, 0)
            self._core.logs.sizes([key], sized)

        def sized(status: int, sizes: dict[bytes, LogSize]) -> None:
            if status != m.OK:
                done(None)
                return
            size = sizes.get(key)
            state.stored, state.position = (0, None) if size is None else (size.number, size.offset)
            if self._listed_as:
                self._core.operations.at(subscribers_address(channel), Present(), counted)
            elif self._options.list_keys:
                there = self._core.channels.get(key)
                counted(m.OK, 0 if there is None else there.count)
            else:
                done(state)

        def counted(status: int, subscribers: int | None = None) -> None:
            state.subscribers = subscribers
            done(state if status == m.OK else None)

        self._core.records.look_up(CHANNELS, key, found)

    def publish(self, application: str, channel: str, event: TestEvent, done: Done) -> None:
        """A message with the next ID."""

        def reply(response: Response) -> None:
            said = msgspec.json.decode(response.body)
            ret = said["ret"]
            done(_STATUS.get(ret, 400) if ret else 200, "" if not ret else f"{said['msg']} (ret {ret})")

        self._app_side.push(channel, 0, "", event.data.encode(), reply)
