"""Actions on devices of all dialects, for operators: find, show, send a test message, empty, disconnect, forget.

A device is named by its uaid, or by its address as 32 hexadecimal digits. Which dialect it is of is found out: where
nothing says it, the one that has a record of it, or a connection, or a message that waits for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from router.common import messages as m
from router.common.client_address import address_text
from router.common.operation import Operation
from router.core.device_operations import (
    CloseDevice,
    EmptyInbox,
    ForgetDevice,
    Held,
    InboxItem,
    Look,
    Looked,
    ReadInbox,
    Where,
)
from router.core.hub import Hub
from router.core.managing import BAD_REQUEST, MAX_PAGE, NOT_FOUND, UNAVAILABLE, Actions, Answer, Refusal, refused
from router.core.operations import Done
from router.core.scope import Origin
from router.core.sessions import WorkerSession
from router.dialects.device_book import DeviceBook, TestPush

_MAX_ENDPOINT: Final = 2048
_NO_ANSWER: Final = "the router that owns this device, or its store, does not answer: try again"
_DISCONNECTED: Final = "an operator has closed this connection"
_FORGOTTEN: Final = "an operator has had this device forgotten"

Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE)]


class FindDevices(msgspec.Struct):
    """One of the three says which: a uaid (or an address of a device), a push endpoint, or a client's IP address."""

    uaid: Annotated[str, Meta(max_length=64)] = ""
    endpoint: Annotated[str, Meta(max_length=_MAX_ENDPOINT)] = ""
    address: Annotated[str, Meta(max_length=64)] = ""
    limit: Limit = 100


class OneDevice(msgspec.Struct):
    """A device, perhaps with its dialect."""

    device: Annotated[str, Meta(max_length=64)]
    dialect: str = ""


class ShowDevice(OneDevice, kw_only=True):
    """With the messages that wait behind this slot, at most so many; perhaps with their contents."""

    after: str = ""
    limit: Limit = 100
    contents: bool = False


class PushDevice(OneDevice, kw_only=True):
    """A message to it."""

    push: TestPush
    request_id: Annotated[str, Meta(max_length=64)] = ""
    """Of the request of the admin port."""


class _Candidate(NamedTuple):
    dialect: str
    address: bytes
    uaid: str | None
    channel: str | None = None


class _Known(NamedTuple):
    """A device that there is."""

    dialect: str
    address: bytes
    uaid: str | None
    channel: str | None
    """That of the endpoint that it was found by."""
    looked: Looked


class DeviceActions:
    """The actions, in one router."""

    def __init__(self, books: Mapping[str, DeviceBook], hub: Hub) -> None:
        """books: of the dialects that are on and have devices, by name."""
        self._books = dict(sorted(books.items()))
        self._operations = hub.core.operations
        self._inspections = hub.inspections
        self._sessions = hub.sessions
        self._scope = hub.scope

    def register(self, actions: Actions) -> None:
        """Have them performed."""
        actions.register("devices", FindDevices, self._find)
        actions.register("device", ShowDevice, self._show)
        actions.register("device.push", PushDevice, self._push)
        actions.register("device.empty", OneDevice, self._empty)
        actions.register("device.disconnect", OneDevice, self._disconnect)
        actions.register("device.forget", OneDevice, self._forget)

    # ------------------------------------------------------------------ which device

    def _candidates(self, device: str, dialect: str) -> list[_Candidate]:
        """What this may name. Raises: Refusal."""
        if dialect and dialect not in self._books:
            raise Refusal(NOT_FOUND, f"there is no dialect {dialect} with devices here, or it is off")
        raw = _address(device)
        found: dict[tuple[str, bytes], _Candidate] = {}
        for name, book in self._books.items():
            if dialect in ("", name):
                address = book.address(device)
                if address is not None:
                    found.setdefault((name, address), _Candidate(name, address, device))
                if raw is not None:
                    found.setdefault((name, raw), _Candidate(name, raw, book.uaid(raw)))
        if not found:
            raise Refusal(NOT_FOUND, "no such device: that is the uaid of no dialect here, and no address of a device")
        return list(found.values())

    def _known(self, candidates: list[_Candidate], answer: Answer, then: Callable[[list[_Known]], None]) -> None:
        """Look for those that there are. A store that does not answer is the answer."""

        def looked(answers: list[tuple[int, Looked | None]]) -> None:
            if any(status != m.OK for status, _ in answers):
                answer(refused(UNAVAILABLE, _NO_ANSWER))
                return
            known = [
                _Known(*candidate, found)
                for candidate, (_, found) in zip(candidates, answers, strict=True)
                if found is not None and _is_there(candidate, found)
            ]
            known.sort(key=_evidence, reverse=True)
            then(known)

        asked: list[tuple[bytes, Operation]] = [
            (one.address, Look(self._books[one.dialect].space, True)) for one in candidates
        ]
        self._operations.at_each(asked, looked)

    def _one(self, asked: OneDevice, answer: Answer, then: Callable[[_Known], None]) -> None:
        def known(found: list[_Known]) -> None:
            if not found:
                answer(refused(NOT_FOUND, "no such device: nothing is stored of it, and it is not connected"))
                return
            try:
                then(found[0])
            except Refusal as refusal:
                answer(refusal.answer)

        self._known(self._candidates(asked.device, asked.dialect), answer, known)

    # ------------------------------------------------------------------ see

    def _find(self, asked: FindDevices, answer: Answer) -> None:
        if bool(asked.uaid) + bool(asked.endpoint) + bool(asked.address) != 1:
            raise Refusal(BAD_REQUEST, "give one of uaid, endpoint and address")
        if asked.address:
            self._search(asked, answer)
        elif asked.uaid:
            self._known(self._candidates(asked.uaid, ""), answer, lambda found: answer(_rows(found)))
        else:
            candidates = [
                _Candidate(name, found[0], book.uaid(found[0]), found[1])
                for name, book in self._books.items()
                if (found := book.of_endpoint(asked.endpoint)) is not None
            ]
            if not candidates:
                raise Refusal(NOT_FOUND, "that is no push endpoint of this farm, or its token key has gone")
            self._known(candidates, answer, lambda found: answer(_rows(found)))

    def _search(self, asked: FindDevices, answer: Answer) -> None:
        def found(connections: list[tuple[WorkerSession, m.Inspection]], complete: bool) -> None:
            devices = [inspection.device for _, inspection in connections]
            operations: list[tuple[bytes, Operation]] = [(device, Where()) for device in devices]
            self._operations.at_each(operations, partial(located, connections, complete))

        def located(
            connections: list[tuple[WorkerSession, m.Inspection]],
            complete: bool,
            answers: list[tuple[int, list[Held] | None]],
        ) -> None:
            rows = []
            for (session, inspection), (_, held) in zip(connections, answers, strict=True):
                since = held[0].since if held else None
                book = self._books.get(inspection.dialect)
                rows.append(
                    {
                        "device": inspection.device.hex(),
                        "uaid": None if book is None else book.uaid(inspection.device),
                        "dialect": inspection.dialect,
                        "shard": session.lease.shard,
                        "host": session.host,
                        "since": since,
                        "address": inspection.address,
                        "channel": None,
                    }
                )
            answer({"devices": rows, "more": not complete})

        try:
            address = address_text(ipaddress.ip_address(asked.address))
        except ValueError:
            raise Refusal(BAD_REQUEST, f"{asked.address} is no IP address") from None
        self._inspections.address(self._sessions, address, asked.limit, found)

    def _show(self, asked: ShowDevice, answer: Answer) -> None:
        def known(one: _Known) -> None:
            book = self._books[one.dialect]

            def read(status: int, page: list[InboxItem] | None = None) -> None:
                if status != m.OK or page is None:
                    answer(refused(UNAVAILABLE, _NO_ANSWER))
                    return
                rows = [_item(item, book.channel(item.slot)) for item in page[: asked.limit]]
                shown = {"messages": one.looked.items, "bytes": one.looked.size, "items": rows}
                shown["next"] = rows[-1]["id"] if len(page) > asked.limit else None
                answer(
                    {
                        "device": one.address.hex(),
                        "uaid": one.uaid,
                        "dialect": one.dialect,
                        "registered": one.looked.record is not None,
                        "channels": book.channels(one.looked.record),
                        "connection": _connection(one.looked),
                        "inbox": shown,
                    }
                )

            self._operations.at(one.address, ReadInbox(asked.after, asked.limit + 1, asked.contents), read)

        self._one(asked, answer, known)

    # ------------------------------------------------------------------ act

    def _push(self, asked: PushDevice, answer: Answer) -> None:
        def known(one: _Known) -> None:
            self._scope.call(
                Origin(asked.request_id),
                self._books[one.dialect].push,
                one.address,
                one.looked.record,
                asked.push,
                lambda status, text: answer({"status": status, "outcome": text}),
            )

        self._one(asked, answer, known)

    def _empty(self, asked: OneDevice, answer: Answer) -> None:
        def known(one: _Known) -> None:
            self._operations.at(one.address, EmptyInbox(), _done(answer, "removed"))

        self._one(asked, answer, known)

    def _disconnect(self, asked: OneDevice, answer: Answer) -> None:
        def known(one: _Known) -> None:
            self._operations.at(one.address, CloseDevice(_DISCONNECTED), _done(answer, "disconnected"))

        self._one(asked, answer, known)

    def _forget(self, asked: OneDevice, answer: Answer) -> None:
        def known(one: _Known) -> None:
            space = self._books[one.dialect].space
            self._operations.at(one.address, ForgetDevice(space, _FORGOTTEN), _done(answer, "forgotten"))

        self._one(asked, answer, known)


def _done(answer: Answer, name: str) -> Done:
    def done(status: int, reply: Any = None) -> None:
        answer({name: reply} if status == m.OK else refused(UNAVAILABLE, _NO_ANSWER))

    return done


def _address(device: str) -> bytes | None:
    try:
        found = bytes.fromhex(device) if len(device) == 32 else b""
    except ValueError:
        return None
    return found if len(found) == 16 else None


def _is_there(candidate: _Candidate, looked: Looked) -> bool:
    """Whether anything is known of it as a device of this dialect."""
    if looked.connection is not None and looked.connection.dialect != candidate.dialect:
        return False
    return looked.record is not None or looked.held is not None or looked.items > 0


def _evidence(known: _Known) -> tuple[bool, bool]:
    return known.looked.connection is not None, known.looked.record is not None


def _connection(looked: Looked) -> dict[str, Any] | None:
    if looked.held is None:
        return None
    found = looked.connection
    return {
        "shard": looked.held.shard,
        "host": looked.held.host,
        "since": looked.held.since,
        "address": None if found is None else found.address,
        "silent": None if found is None else found.silent,
        "buffered": None if found is None else found.buffered,
    }


def _rows(found: list[_Known]) -> dict[str, Any]:
    rows = []
    for one in found:
        connection = _connection(one.looked) or {"shard": None, "host": None, "since": None, "address": None}
        row = {"device": one.address.hex(), "uaid": one.uaid, "dialect": one.dialect, "channel": one.channel}
        rows.append(row | {name: connection[name] for name in ("shard", "host", "since", "address")})
    return {"devices": rows, "more": False}


def _item(item: InboxItem, channel: str) -> dict[str, Any]:
    return {
        "id": item.slot,
        "channel": channel,
        "version": str(item.version),
        "size": item.size,
        "age": item.age,
        "ttl": item.ttl,
        "content": item.body,
    }
