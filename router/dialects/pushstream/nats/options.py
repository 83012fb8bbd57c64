"""The settings of the queue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import urlsplit

from router.common.options import Section, option

_SCHEMES: Final = ("nats", "tls", "ws", "wss")
_SUBJECT: Final = re.compile(r"[^\s.]+(\.[^\s.]+)*")
_NAME: Final = re.compile(r"[^\s.*>/\\]*")


def _urls(text: str) -> str:
    for url in servers(text):
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(text)
        _ = parts.port  # raises for one that is none
    return text


def _subject(text: str) -> str:
    if _SUBJECT.fullmatch(text) is None:
        raise ValueError(text)
    return text


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(text)
    return text


def servers(text: str) -> list[str]:
    """The URLs of `nats.url`."""
    return [url.strip() for url in text.split(",") if url.strip()]


@dataclass(frozen=True)
class NatsOptions(Section):
    SECTION: ClassVar[str] = "nats"
    HELP: ClassVar[str] = "A queue whose messages are published to channels of push stream, if that dialect is on."

    url: str = option(
        "",
        "the NATS server, perhaps with user and password, or those of a cluster, comma separated; empty: no queue",
        expects="URLs of NATS servers, nats://127.0.0.1:4222 for one",
        check=_urls,
        secret=True,
    )
    subject: str = option("notification", "subject of the messages", expects="a subject of NATS", check=_subject)
    stream: str = option(
        "",
        "stream of JetStream that keeps the messages; each is acknowledged when the store has it; empty: no stream, so "
        "that messages which come while the router is away are lost",
        expects="the name of a stream",
        check=_name,
    )
    durable: str = option(
        "connection-farm",
        "durable consumer of that stream, which knows how far the farm has got; it is made where there is none",
        expects="the name of a consumer",
        check=_name,
    )
    max_waiting: int = option(
        1000,
        "messages that were taken and are not published yet; beyond, those of a stream stay there, others are dropped",
        unit="messages",
        ge=1,
        le=65_536,
    )
    max_waiting_bytes: int = option(
        16_777_216,
        "the same in bytes; of a stream's messages each counts as one of pushstream.max_message_bytes",
        unit="bytes",
        ge=65_536,
    )


def max_in_work(options: NatsOptions, max_message_bytes: int) -> int:
    """Messages of a stream that may be taken and not published yet."""
    return max(1, min(options.max_waiting, options.max_waiting_bytes // max_message_bytes))


def stream_problems(options: NatsOptions) -> list[str]:
    """A line for each pair of options that do not fit each other."""
    return ["nats.durable: a stream needs a consumer's name"] if options.stream and not options.durable else []
