"""A request of an app server: its parameters, how it is refused, and what several requests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from router.common.answers import Answer
from router.dialects.pusher.applications import App
from router.dialects.pusher.protocol import (
    BAD_REQUEST,
    FAILED,
    SERVER_TO_USER,
    PusherOptions,
    is_channel_name,
)
from router.http.message import PendingResponse, Response
from router.http.percent import unquote
from router.http.routes import Reply

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")
Attributes = dict[str, Any]


def error_response(answer: Answer, message: str = "", *headers: tuple[str, str]) -> Response:
    """message: more particular than the table's."""
    body = {"error": {"code": answer.status, "message": message or answer.text}}
    return Response(answer.status, _encode(body), headers=headers)


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, answer: Answer, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.answer = answer
        self.response = error_response(answer, message, *headers)


WAIT: Final = ("Retry-After", "5")
EMPTY: Final = Response(200, b"{}")
FAILED_RESPONSE: Final = error_response(FAILED)
NOTHING: Final[frozenset[str]] = frozenset()
INFORMED: Final = frozenset({"user_count", "subscription_count"})
INFORMED_OF_ONE: Final = INFORMED | {"cache"}


@dataclass(slots=True)
class Call:
    """A request that was found to come from its application."""

    app: App
    parameters: Mapping[str, str]
    body: bytes
    reply: Reply
    pending: PendingResponse | None
    headers: dict[bytes, bytes]


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Raises: Refused if the body is not what it has to be."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Refused(BAD_REQUEST, str(error)) from None
    except UnicodeDecodeError:
        raise Refused(BAD_REQUEST, "JSON is not UTF-8") from None
    except RecursionError:
        raise Refused(BAD_REQUEST, "JSON is nested too deeply") from None


def wanted_of(info: str | None, available: frozenset[str]) -> frozenset[str]:
    """The attributes that a comma separated list names, as far as they can be had here. Raises: Refused."""
    if not info:
        return NOTHING
    wanted = frozenset(part.strip() for part in info.split(","))
    if not wanted <= INFORMED_OF_ONE:
        raise Refused(BAD_REQUEST, f"info may name {', '.join(sorted(INFORMED_OF_ONE))}")
    return wanted & available


def parameters_of(query: bytes) -> dict[str, str]:
    """Parameters by name in lower case. One that cannot be told from two in a signed text is left out."""
    parameters: dict[str, str] = {}
    if query:
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            text = unquote(value)
            if "&" not in text:
                parameters[name.decode("utf-8", "replace").lower()] = text
    return parameters


def check_channel(name: str, options: PusherOptions) -> None:
    """Raises: Refused if no channel can be called so."""
    if is_channel_name(name, options.max_channel_name):
        return
    if name.startswith(SERVER_TO_USER) and 0 < len(name) - len(SERVER_TO_USER) <= options.max_user_id:
        return
    raise Refused(
        BAD_REQUEST,
        f"The name of a channel has 1 to {options.max_channel_name} characters of A-Z a-z 0-9 _ - = @ , . ;",
    )
