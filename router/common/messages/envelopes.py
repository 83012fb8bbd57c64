"""One ZeroMQ message each: those of workers and of the supervisor, and those of a router."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from router.common.messages.base import Envelope
from router.common.messages.to_router import ToRouter
from router.common.messages.to_worker import ToWorker
from router.common.messages.values import Count, Host, Incarnation, Number


class Ready(Envelope, tag=1):
    """A worker is there. It speaks all versions from the lowest to the highest. This and REFUSED must be understood by
    every version from 6 on."""

    highest: Count
    shard: Count
    incarnation: Incarnation
    pid: Count
    lowest: Count


class WorkerBatch(Envelope, tag=2):
    """Messages of many connections. Sequence counts up from 1."""

    sequence: Number
    messages: list[ToRouter]


class Begin(Envelope, tag=7):
    """The first after WELCOME: batches that follow begin after `confirmed`. host: the ID of the worker's host in the
    cluster, or ""."""

    host: Host
    confirmed: Number


class Beat(Envelope, tag=3):
    """The worker's counters; also keeps its lease. sequence: of the last batch that it has sent."""

    snapshot: Annotated[dict[Annotated[str, Meta(max_length=100)], int | float | bool], Meta(max_length=1000)]
    sequence: Number = 0


class AskStatus(Envelope, tag=4):
    """A supervisor wants the router's status. host: the ID of its host in a cluster, of which it wants the workers; "":
    of all."""

    number: Number
    host: Host = ""


class SetBroadcast(Envelope, tag=5):
    """Set a broadcast, remove it (None), or only read (key ""): answered by STATUS with {"outcome": OK, FULL or FAILED,
    "broadcasts": {key: value of that space}} once that is durable."""

    number: Number
    space: str
    key: str
    value: str | None


class Manage(Envelope, tag=8):
    """A supervisor wants something done or shown for a user of the admin port: an action of `router.core.managing` with
    its arguments. Answered by STATUS with what that gives."""

    number: Number
    action: Annotated[str, Meta(max_length=64)]
    arguments: dict[str, Any]


class Leave(Envelope, tag=9):
    """The worker has drained and is about to end: its lease ends now, and none of its batches is unconfirmed. Not
    before version 8."""


class Announced(Envelope, tag=6):
    """All that the worker holds has been announced, with the batches up to this one; 0: it holds nothing, and has sent
    none. Not repeated: it is sent each time that the worker has joined."""

    sequence: Number


class Welcome(Envelope, tag=11):
    """READY was accepted: this version is spoken from here on. Repeat what is not confirmed, and announce."""

    incarnation: Incarnation
    version: Count


class Rejoin(Envelope, tag=12):
    """The router does not know this worker (any more): it is to send READY and to announce."""


class Refused(Envelope, tag=15):
    """READY was not accepted: the router speaks the versions from the lowest to the highest."""

    lowest: Count
    highest: Count


class RouterBatch(Envelope, tag=13):
    """Batches up to `confirmed` are done with; of those in `unkept` the store may not have kept the acks. number:
    counts up from 1 after each WELCOME."""

    confirmed: Number
    messages: list[ToWorker]
    unkept: list[Number]
    number: Number = 0


class Status(Envelope, tag=14):
    """The answer to ASK_STATUS, SET_BROADCAST or MANAGE with this number."""

    number: Number
    answer: dict[str, Any]


OfWorker = Ready | Begin | WorkerBatch | Beat | Announced | AskStatus | SetBroadcast | Manage | Leave
"""Envelopes that a router receives."""
OfRouter = Welcome | Rejoin | Refused | RouterBatch | Status
"""Envelopes that a router sends."""
