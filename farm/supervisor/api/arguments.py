"""The arguments of a request of `/api/v1`, read from its bytes and held against the types of its route. Pure.

Nothing is passed over, guessed or repaired: what the route does not know, what stands there twice and what is no UTF-8
is a `Fault` that names it, so that no request does something else than its sender meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlencode

import msgspec

from router.common.log_forms import printable

_SHOWN: Final = 100  # characters of what was sent that an error repeats
_WHERE: Final = re.compile(r"(.*) - at `(?:key in )?\$\.?(.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


class Fault(ValueError):
    """What is wrong with an argument, in a line."""


class NoArguments(msgspec.Struct, forbid_unknown_fields=True):
    """Of a query in which there may be nothing."""


def read_path(raw: bytes) -> None:
    """Refuse a path whose percent-encoding is no UTF-8: decoded it would name something else. Raises: Fault."""
    _text(raw, "the path")


def read_query(raw: bytes, kind: type[msgspec.Struct]) -> Any:
    """A query string as this struct. Raises: Fault."""
    found: dict[str, str] = {}
    for part in filter(None, raw.split(b"&")):
        name, _, value = (_text(side.replace(b"+", b" "), "the query") for side in part.partition(b"="))
        if name in found:
            raise Fault(f"the query: {_short(name)} stands there twice")
        found[name] = value
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as wrong:
        raise Fault(_said("the query", str(wrong).replace("got `str`", "found something else"), kind)) from None


def read_body(data: bytes, kind: type[msgspec.Struct]) -> Any:
    """A body of JSON as this struct. Raises: Fault."""
    try:
        found = msgspec.json.decode(data, type=kind)
        json.loads(data, object_pairs_hook=_once)
    except msgspec.ValidationError as wrong:
        raise Fault(_said("the body", str(wrong), kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise Fault(f"the body is no JSON: {wrong}") from None
    return found


def written(query: Any, body: Any, told: Iterable[str]) -> str:
    """The arguments for the log, as a query string, in which no value can pass for another: those of the query that are
    not the defaults, and these fields of the body."""
    given = msgspec.to_builtins(query)
    defaults = dict(zip(reversed(query.__struct_fields__), reversed(query.__struct_defaults__), strict=False))
    pairs = [(name, value) for name, value in given.items() if value != defaults.get(name)]
    pairs += [(name, value) for name in told if (value := getattr(body, name)) != ""]
    return urlencode(pairs)


def _text(raw: bytes, where: str) -> str:
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Fault(f"{where} is no UTF-8: {_short(ascii(raw)[2:-1])}") from None
    if "\0" in text:
        raise Fault(f"{where} has a NUL (%00) in it")
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Fault(f"the body: {_short(name)} stands there twice")
        found[name] = value
    return found


def _said(where: str, text: str, kind: type[msgspec.Struct]) -> str:
    """What msgspec says, with the argument's name in front."""
    if (unknown := _UNKNOWN.match(text)) is not None:
        known = ", ".join(kind.__struct_fields__) or "nothing"
        return f"{where}: {_short(unknown[1])} is not known here; there may be: {known}"
    if (placed := _WHERE.fullmatch(text)) is not None:
        what = placed[1]
        if "matching regex" in what:  # what that means stands in the description
            found = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"][placed[2]]
            what = f"expected: {found.get('description', 'another form')}"
        return f"{where}: {placed[2]}: {what[:1].lower()}{what[1:]}"
    return f"{where}: {text[:1].lower()}{text[1:]}"


def _short(text: str) -> str:
    shown = printable(text[:_SHOWN])
    return f"{shown}..." if len(text) > _SHOWN else shown
