"""Close codes and error answers as rows of tables: the code that sends one and the page about it use the same row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

Side = Literal["router", "worker"]


class CloseCode(int):
    """A close code (RFC 6455, 7.4) with what it says."""

    text: str
    """The usual reason, which is sent where nothing more particular is known."""
    client: str
    """What a client does then."""
    metric: str
    """The worker's number that counts it, "" for none of its own."""

    def __new__(cls, code: int, text: str, client: str, metric: str = "") -> Self:
        made = super().__new__(cls, code)
        made.text, made.client, made.metric = text, client, metric
        return made


class Answer(NamedTuple):
    """An answer that refuses: to a request, or to a command of a device."""

    status: int
    """As HTTP has it; 0 where the protocol has none."""
    text: str
    client: str
    """What a client does then."""
    metric: str = ""
    """The number that counts it, "" for none of its own."""
    number: int | None = None
    """The protocol's own number for it."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind."""

    title: str
    rows: Sequence[CloseCode | Answer]
    side: Side
    """Whose metrics are meant."""
