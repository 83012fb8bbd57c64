"""A dialect as small as it can be whose clients subscribe to several channels at once, each from a position."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from farm.dialects import Dialect, Effects, Session, Subscribe, Subscribed, Subscription, Unsubscribe
from farm.transports.request import Request
from router.common.messages import OK, channel_key, channel_label
from router.common.position import LogEvent, position

NAME = "replay"


def key_of(channel: str) -> bytes:
    return channel_key(NAME, "app", channel)


class ReplaySession(Session):
    """Takes {"subscribe": {channel: position}}, {"leave": channel} and {"say": anything}."""

    farewell: ClassVar[tuple[int, str]] = (4100, "come back later")

    def __init__(self) -> None:
        self._channels: tuple[bytes, ...] = ()

    @property
    def channels(self) -> tuple[bytes, ...]:
        return self._channels

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        told = json.loads(message)
        if "subscribe" in told:
            wanted = tuple(
                Subscription(key_of(name), channel_label(NAME, "app", name), position=position(place))
                for name, place in told["subscribe"].items()
            )
            self._channels = tuple({*self._channels, *(one.key for one in wanted)})
            return (Subscribe(wanted),)
        if "leave" in told:
            key = key_of(told["leave"])
            self._channels = tuple(channel for channel in self._channels if channel != key)
            return (Unsubscribe(key), _text({"left": told["leave"]}))
        return (_text({"said": told["say"]}),)

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        channels = []
        for wanted, status, _, log in results:
            if status != OK:
                self._channels = tuple(channel for channel in self._channels if channel != wanted.key)
            found: dict[str, Any] = {"name": wanted.label.rpartition("\0")[2], "status": status}
            if log is not None:
                events = [[event.offset, event.body] for event in log.events]
                found |= {"epoch": log.epoch, "offset": log.offset, "recovered": log.recovered, "events": events}
                found |= {"more": log.more, "at": [[event.time, event.tag] for event in log.events]}
            channels.append(found)
        return (_text({"subscribed": channels}),)


class ReplayDialect(Dialect):
    """Every event of a log comes with its offset."""

    def __init__(self) -> None:
        self.texts = 0  # that were made of events

    def opened(self, request: Request) -> Session:
        return ReplaySession()

    def event_text(self, channel: str, event: LogEvent) -> bytes:
        self.texts += 1
        if not event.offset:
            return event.body.encode()
        return _text({"channel": channel, "offset": event.offset, "body": event.body, "at": [event.time, event.tag]})

    def missed_text(self, channel: str) -> bytes:
        return _text({"missed": channel})


def _text(told: Any) -> bytes:
    return json.dumps(told).encode()
