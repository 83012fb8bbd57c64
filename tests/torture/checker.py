"""What must hold of every run, whatever was done to the farm in it. A history goes in, violations come out.

The rules are those of "What it promises" in the README, and of "What an answer means" on each dialect's page. Where
the promise itself has an exception (nobody keeps events of channels; an ack sent just before its connection died may be
lost), so has the rule, and no wider one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from torture.history import (
    CLOCK,
    DIALECTS,
    FOLLOWED,
    LINK,
    PUSHER,
    SIMPLEPUSH,
    STOPPED,
    STORE,
    WEBPUSH,
    WIRE,
    Arrival,
    History,
    Push,
    Subscribed,
)

_NEAR_S: Final = 1.0
"""A connection that lasted so much longer than an answer was there when the answer was sent."""
_SETTLED_S: Final = 5.0
"""So long before and after a disturbance of the link nothing is said about events that nobody keeps."""
_LATE_S: Final = 30.0
"""A message that comes so long after its TTL was not merely slow."""
_GOOD: Final = dict.fromkeys(DIALECTS, (200,)) | {SIMPLEPUSH: (200, 202), WEBPUSH: (201,)}
_TRY_AGAIN: Final = (0, 503)


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept: which, where, when."""

    rule: str
    text: str
    at: float
    client: str = ""
    channel: str = ""


Key = tuple[str, str]


class Index:
    """A history, by what the rules ask for."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.pushes: dict[Key, list[Push]] = defaultdict(list)
        self.by_connection: dict[tuple[int, str], list[Arrival]] = defaultdict(list)
        self.arrivals: dict[Key, list[Arrival]] = defaultdict(list)
        self.dialect: dict[Key, str] = {}
        for push in history.pushes:
            self.pushes[push.client, push.channel].append(push)
            self.dialect[push.client, push.channel] = push.dialect
        for arrival in history.arrivals:
            self.by_connection[arrival.connection, arrival.channel].append(arrival)
            for key in ((arrival.client, arrival.channel), ("", arrival.channel)):
                if key in self.dialect:
                    self.arrivals[key].append(arrival)

        self._touched = {what: _merged(history, what) for what in (LINK, STORE, STOPPED, WIRE)}

    def touched(self, what: str, begin: float, end: float) -> bool:
        """Whether a fault that touches this was on at some moment between."""
        spans = self._touched[what]
        following = bisect_left(spans, (end, float("inf")))
        return following > 0 and spans[following - 1][1] >= begin

    def of(self, dialect: str) -> Iterator[tuple[Key, list[Push], list[Arrival]]]:
        """Every channel of a dialect that something was pushed to."""
        for key, pushes in self.pushes.items():
            if self.dialect[key] == dialect:
                yield key, pushes, self.arrivals[key]

    def dialect_of(self, arrival: Arrival) -> str:
        """What the channel of an arrival belongs to."""
        return self.dialect.get((arrival.client, arrival.channel)) or self.dialect.get(("", arrival.channel), "")


def _merged(history: History, what: str) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    for fault in sorted(history.faults, key=lambda fault: fault.begin):
        if what not in fault.touches:
            continue
        if spans and fault.begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], fault.end))
        else:
            spans.append((fault.begin, fault.end))
    return spans


T = TypeVar("T")


def _newest_before(
    known: Iterable[tuple[float, int]], asked: Iterable[tuple[float, T]]
) -> Iterator[tuple[T, tuple[int, float]]]:
    """For each question (its time, and what it is about) the highest number known by then, and since when."""
    facts = sorted(known)
    best, position = (-1, 0.0), 0
    for at, subject in sorted(asked, key=lambda question: question[0]):
        while position < len(facts) and facts[position][0] < at:
            since, number = facts[position]
            best = max(best, (number, since), key=lambda pair: pair[0])
            position += 1
        yield subject, best


def _accepted(pushes: Iterable[Push]) -> list[tuple[float, int]]:
    return [(push.answered, push.number) for push in pushes if push.accepted and push.answered is not None]


Rule = Callable[[Index], Iterable[Violation]]


def check(history: History, more: tuple[Rule, ...] = ()) -> list[Violation]:
    """Every violation of the rules that hold for all and of some more, in the order of time."""
    index = Index(history)
    found = [Violation(odd.rule, odd.text, odd.at) for odd in history.oddities]
    for rule in (*RULES, *more):
        found.extend(rule(index))
    return sorted(found, key=lambda violation: violation.at)


# ---------------------------------------------------------------------- answers


def answers(index: Index) -> Iterator[Violation]:
    """A subscription that exists is never answered 404 or 410, and a good request never anything but 2xx or 503."""
    for push in index.history.pushes:
        if push.status not in (*_GOOD[push.dialect], *_TRY_AGAIN):
            text = f"{push.dialect}: push {push.number} to a live subscription was answered {push.status} {push.error}"
            yield Violation("answers", text, push.answered or push.sent, push.client, push.channel)


def accepted_is_kept(index: Index) -> Iterator[Violation]:
    """What was answered 2xx has arrived in the end, or something that replaces it."""
    if not index.history.complete:
        return
    for (client, channel), pushes, arrivals in index.of(SIMPLEPUSH):
        newest = max((push.number for push in pushes if push.accepted), default=0)
        heard = max((arrival.number for arrival in arrivals), default=0)
        if heard < newest:
            push = next(push for push in pushes if push.number == newest)
            text = f"version {newest} was answered {push.status}, the newest that ever came is {heard}"
            yield Violation("lost", text, push.sent, client, channel)
    for (client, channel), pushes, arrivals in index.of(WEBPUSH):
        heard_numbers = {arrival.number for arrival in arrivals}
        last_heard_of_topic: dict[str, int] = {}
        for push in pushes:
            if push.topic and push.number in heard_numbers:
                last_heard_of_topic[push.topic] = max(push.number, last_heard_of_topic.get(push.topic, 0))
        deletions = {push.topic: push.sent for push in pushes if push.topic and push.deleting is not None}
        for push in pushes:
            if not push.accepted or push.number in heard_numbers or push.deleting is not None or _may_expire(push):
                continue
            if push.topic and last_heard_of_topic.get(push.topic, 0) > push.number:
                continue
            if push.topic and deletions.get(push.topic, -1.0) > push.sent:
                continue  # a later one replaced it, and that was deleted
            what = f"topic {push.topic}" if push.topic else "no topic"
            text = f"message {push.number} (TTL {push.ttl}, {what}) was answered {push.status} and never came"
            yield Violation("lost", text, push.sent, client, channel)


def _may_expire(push: Push) -> bool:
    return push.ttl is not None and push.ttl < 3600


def said_200(index: Index) -> Iterator[Violation]:
    """SimplePush's 200 means written to the socket: the one connection that was there before and after has it."""
    connections = defaultdict(list)
    for connection in index.history.connections.values():
        connections[connection.client].append(connection)
    for (client, channel), pushes, arrivals in index.of(SIMPLEPUSH):
        heard = {arrival.number for arrival in arrivals}
        for push in pushes:
            if push.status != 200 or push.number in heard or push.answered is None:
                continue
            there = [
                connection
                for connection in connections[client]
                if connection.dialled < push.answered and (connection.ended or float("inf")) > push.sent
            ]
            if len(there) != 1 or there[0].opened > push.sent:
                continue
            if index.touched(WIRE, push.sent, push.answered + _NEAR_S):
                continue
            if there[0].listened_until() > push.answered + _NEAR_S:
                text = f"version {push.number} was answered 200, but connection {there[0].number} never got it"
                yield Violation("false 200", text, push.answered, client, channel)


# ---------------------------------------------------------------------- on one connection


def once_a_connection(index: Index) -> Iterator[Violation]:
    """Nothing comes twice on one connection."""
    for (number, channel), arrivals in index.by_connection.items():
        seen: dict[int, Arrival] = {}
        for arrival in arrivals:
            first = seen.setdefault(arrival.number, arrival)
            if first is not arrival:
                acked = "" if first.acked is None else f", acked at {first.acked:.3f}"
                text = f"{arrival.number} came at {first.at:.3f}{acked}, and again at {arrival.at:.3f} on {number}"
                yield Violation("twice", text, arrival.at, arrival.client, channel)


def in_order(index: Index) -> Iterator[Violation]:
    """On one connection a channel never goes back. Where each message is one for itself (all but SimplePush), one that
    nobody answered has no place in the order: its sender has gone on without it. WebPush orders as autopush does: what
    waits with a topic comes before what waits without, and what waits comes in batches, between which a message that is
    sent now does not wait."""
    pushes = {(push.client, push.channel, push.number): push for push in index.history.pushes}
    for (number, channel), arrivals in index.by_connection.items():
        last: dict[str, Arrival] = {}
        last_waited: dict[str, Arrival] = {}
        for arrival in arrivals:
            key = (channel, arrival.number)
            push = pushes.get((arrival.client, *key)) or pushes.get(("", *key))
            if push is None or (not push.accepted and push.dialect != SIMPLEPUSH):
                continue
            waited = last_waited if push.dialect == WEBPUSH and _waited(index, push, arrival) else last
            before = waited.get(push.topic)
            if before is not None and arrival.number < before.number:
                text = f"{arrival.number} at {arrival.at:.3f} after {before.number} at {before.at:.3f} on {number}"
                yield Violation("order", text, arrival.at, arrival.client, channel)
            else:
                waited[push.topic] = arrival


def _waited(index: Index, push: Push, arrival: Arrival) -> bool:
    """Whether a message was for a device that was not greeted yet, or whose worker had lost the router."""
    away = index.touched(LINK, push.sent, push.sent) and arrival.at > (push.answered or arrival.at) + _NEAR_S / 2
    return away or push.sent < index.history.connections[arrival.connection].opened


# ---------------------------------------------------------------------- across connections


def acked_is_gone(index: Index) -> Iterator[Violation]:
    """What was acknowledged never comes again on a later connection, once the farm has dealt with the ack."""

    def gone(arrivals: Iterable[Arrival]) -> Iterator[tuple[float, Arrival]]:
        for one in arrivals:
            if one.acked is None or one.confirmed is None:
                continue
            if not index.touched(STORE, one.acked - _NEAR_S, one.confirmed + _NEAR_S):  # a removal may fail unseen
                yield one.confirmed, one

    def violation(key: Key, arrival: Arrival, number: int, confirmed: float) -> Violation:
        came = f"{arrival.number} came at {arrival.at:.3f} on {arrival.connection}"
        text = f"{came}, {number} was confirmed at {confirmed:.3f}"
        return Violation("acked came again", text, arrival.at, *key)

    connections = index.history.connections
    for key, _, arrivals in index.of(SIMPLEPUSH):
        known = [(confirmed, one.number) for confirmed, one in gone(arrivals)]
        questions = [(connections[arrival.connection].opened, arrival) for arrival in arrivals]
        for arrival, (number, confirmed) in _newest_before(known, questions):
            if arrival.number <= number:
                yield violation(key, arrival, number, confirmed)
    for key, _, arrivals in index.of(WEBPUSH):
        first = {one.number: confirmed for confirmed, one in sorted(gone(arrivals), key=lambda pair: -pair[0])}
        for arrival in arrivals:
            confirmed = first.get(arrival.number, float("inf"))
            if confirmed < connections[arrival.connection].opened:
                yield violation(key, arrival, arrival.number, confirmed)


def newest_only(index: Index) -> Iterator[Violation]:
    """SimplePush keeps the newest version: a connection that was opened after it was accepted hears none older."""
    for key, pushes, arrivals in index.of(SIMPLEPUSH):
        questions = [(index.history.connections[arrival.connection].dialled, arrival) for arrival in arrivals]
        for arrival, (number, since) in _newest_before(_accepted(pushes), questions):
            if arrival.number < number:
                text = (
                    f"{arrival.number} came at {arrival.at:.3f} on {arrival.connection}, which is younger than "
                    f"the acceptance of {number} at {since:.3f}"
                )
                yield Violation("older version", text, arrival.at, *key)


def replaced_and_deleted(index: Index) -> Iterator[Violation]:
    """WebPush: what a newer message of its topic has replaced, or what was deleted, does not come any more."""
    connections = index.history.connections
    for key, pushes, arrivals in index.of(WEBPUSH):
        by_number = {push.number: push for push in pushes}
        topics: dict[str, list[Push]] = defaultdict(list)
        for push in pushes:
            topics[push.topic].append(push)
        questions: dict[str, list[tuple[float, Arrival]]] = defaultdict(list)
        for arrival in arrivals:
            found = by_number.get(arrival.number)
            if found is None:
                continue
            dialled = connections[arrival.connection].dialled
            if found.deleted is not None and found.deleted < dialled:
                text = f"{found.number}, deleted at {found.deleted:.3f}, came at {arrival.at:.3f}"
                yield Violation("deleted came", text, arrival.at, *key)
            if found.topic:
                questions[found.topic].append((dialled, arrival))
        for topic, asked in questions.items():
            for arrival, (number, since) in _newest_before(_accepted(topics[topic]), asked):
                if arrival.number < number:
                    text = f"{arrival.number} came at {arrival.at:.3f}, replaced by {number} at {since:.3f}"
                    yield Violation("replaced came", text, arrival.at, *key)


def expired(index: Index) -> Iterator[Violation]:
    """WebPush: nothing comes after its TTL, and with TTL 0 only to who was there."""
    history = index.history
    if any(CLOCK in fault.touches for fault in history.faults):
        return
    for key, pushes, arrivals in index.of(WEBPUSH):
        by_number = {push.number: push for push in pushes}
        for arrival in arrivals:
            push = by_number.get(arrival.number)
            if push is None or push.ttl is None or push.answered is None:
                continue
            dialled = history.connections[arrival.connection].dialled
            if push.ttl == 0 and dialled > push.answered + _NEAR_S and not index.touched(STOPPED, push.sent, dialled):
                text = (
                    f"{push.number} with TTL 0, answered at {push.answered:.3f}, came on a connection of {dialled:.3f}"
                )
                yield Violation("kept too long", text, arrival.at, *key)
            elif push.ttl > 0 and arrival.at > push.sent + push.ttl + _LATE_S:
                text = f"{push.number} with TTL {push.ttl}, sent at {push.sent:.3f}, came at {arrival.at:.3f}"
                yield Violation("kept too long", text, arrival.at, *key)


def data_is_whole(index: Index) -> Iterator[Violation]:
    """What arrives is what was sent."""
    for key, pushes, arrivals in [one for dialect in DIALECTS for one in index.of(dialect)]:
        by_number = {push.number: push for push in pushes}
        for arrival in arrivals:
            push = by_number.get(arrival.number)
            if push is None:
                yield Violation("invented", f"{arrival.number} was never sent", arrival.at, *key)
            elif arrival.data is not None and push.data is not None and arrival.data != push.data:
                yield Violation("changed", f"the data of {arrival.number} is not what was sent", arrival.at, *key)


# ---------------------------------------------------------------------- channels of many


def followed(index: Index) -> Iterator[Violation]:
    """Who comes back with the position of what it had last has everything that was accepted, once and in order, however
    many connections it took. What nobody answered may have come or not, in any place."""
    for (_, channel), pushes, arrivals in [one for dialect in FOLLOWED for one in index.of(dialect)]:
        accepted = {push.number: push for push in pushes if push.accepted}
        for client in (name for name, channels in index.history.follows.items() if channel in channels):
            seen: dict[int, Arrival] = {}
            newest = 0
            for arrival in (one for one in arrivals if one.client == client):
                first = seen.setdefault(arrival.number, arrival)
                if first is not arrival:
                    text = f"{arrival.number} came at {first.at:.3f} on {first.connection}, and on {arrival.connection}"
                    yield Violation("had already", text, arrival.at, client, channel)
                elif arrival.number in accepted and arrival.number < newest:
                    text = f"{arrival.number} came behind {newest} on {arrival.connection}"
                    yield Violation("behind newer", text, arrival.at, client, channel)
                newest = max(newest, arrival.number if arrival.number in accepted else 0)
            for push in accepted.values():
                if index.history.complete and push.number not in seen:
                    text = f"message {push.number} was answered {push.status} and never came to {client}"
                    yield Violation("not replayed", text, push.sent, client, channel)


def events_reach_subscribers(index: Index) -> Iterator[Violation]:
    """Pusher: an accepted event reaches whoever was subscribed before and after, while the link was not disturbed."""
    history = index.history
    heard = {(arrival.connection, arrival.channel, arrival.number) for arrival in history.arrivals}
    subscribed = defaultdict(list)
    for one in sorted(history.subscribed, key=lambda one: one.at):
        subscribed[one.channel].append((one, history.connections[one.connection].listened_until()))
    for (_, channel), pushes, _ in index.of(PUSHER):
        waiting, there = subscribed[channel], []
        for push in sorted(pushes, key=lambda push: push.sent):
            while waiting and waiting[0][0].at < push.sent:
                there.append(waiting.pop(0))
            there = [(one, until) for one, until in there if until > push.sent]
            if not push.accepted or push.answered is None:
                continue
            if index.touched(LINK, push.sent - _SETTLED_S, push.answered + _SETTLED_S):
                continue
            for one, until in there:
                if until > push.answered + _SETTLED_S and (one.connection, channel, push.number) not in heard:
                    text = f"event {push.number} was answered 200, but connection {one.connection} never got it"
                    yield Violation("event lost", text, push.sent, history.connections[one.connection].client, channel)


def cache_is_fresh(index: Index) -> Iterator[Violation]:
    """Pusher: who subscribes to a cache channel hears at once the last event that was accepted before, or a newer; or
    one that was still on its way to its worker, and right behind it the others up to that last one. Behind a worker
    that stood still for longer than its lease those may be missing, and the newest follows.
    While the store cannot read, a cache miss sends the client to its application, which is as good."""
    asked = defaultdict(list)
    for one in index.history.subscribed:
        if one.cached is not None:
            asked[one.channel].append((one.asked, one))
    for (_, channel), pushes, _ in index.of(PUSHER):
        for one, (number, since) in _newest_before(_accepted(pushes), asked[channel]):
            if one.cached is None or one.cached >= number:
                continue
            if one.cached < 0:
                excused = index.touched(STORE, one.asked - _NEAR_S, one.at + _NEAR_S)
            elif index.touched(STOPPED, one.asked - _NEAR_S, one.asked + _SETTLED_S):
                excused = _follows(index, one, _SETTLED_S, lambda later, last=number: later >= last)
            else:
                excused = _follows(index, one, _NEAR_S, lambda later, last=number: later == last)
            if not excused:
                got = "cache_miss" if one.cached < 0 else f"{one.cached}, and not what was newer right behind it"
                text = f"connection {one.connection} got {got}, but {number} had been accepted at {since:.3f}"
                yield Violation("stale cache", f"{text} (it asked at {one.asked:.3f})", one.at, "", channel)


def _follows(index: Index, one: Subscribed, seconds: float, wanted: Callable[[int], bool]) -> bool:
    """Whether such an event came to a subscriber soon after its first, if it listened for so long."""
    if index.history.connections[one.connection].listened_until() <= one.at + seconds:
        return True
    came = index.by_connection[one.connection, one.channel]
    return any(wanted(arrival.number) and arrival.at <= one.at + seconds for arrival in came)


def members_once(index: Index) -> Iterator[Violation]:
    """Pusher: nobody is told that a member has come who is there, or has gone who is not."""
    there: dict[tuple[int, str, str], bool] = {}
    for change in index.history.members:
        key = (change.connection, change.channel, change.user)
        if there.get(key) is change.there:
            what = "come" if change.there else "gone"
            text = f"connection {change.connection} was told twice that {change.user} has {what}"
            yield Violation("member twice", text, change.at, "", change.channel)
        there[key] = change.there


def presence_settles(index: Index) -> Iterator[Violation]:
    """Pusher: when nothing happens any more, every observer of a presence channel knows who is there."""
    for one in index.history.settled:
        if one.seen != one.truth:
            missing, ghosts = sorted(one.truth - one.seen), sorted(one.seen - one.truth)
            text = f"{one.observer} misses {missing}, and has {ghosts} that are not there"
            yield Violation("presence", text, float("inf"), "", one.channel)


def webhooks_agree(index: Index) -> Iterator[Violation]:
    """Pusher: the last channel_occupied or channel_vacated of a channel is the truth."""
    for state in index.history.occupancy:
        told = [one for one in index.history.webhooks if one.channel == state.channel and one.at <= state.at]
        last = max(told, key=lambda one: one.at, default=None)
        expected = "channel_occupied" if state.occupied else "channel_vacated"
        if last is None or last.name != expected:
            got = "nothing" if last is None else f"{last.name} at {last.at:.3f}"
            yield Violation("webhook", f"expected {expected} as the last, got {got}", state.at, "", state.channel)


RULES: Final[tuple[Rule, ...]] = (
    answers,
    accepted_is_kept,
    said_200,
    once_a_connection,
    in_order,
    acked_is_gone,
    newest_only,
    replaced_and_deleted,
    expired,
    data_is_whole,
    followed,
    events_reach_subscribers,
    cache_is_fresh,
    members_once,
    presence_settles,
    webhooks_agree,
)
