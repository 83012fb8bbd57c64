"""The settings of authorisation by the application's main server, and which URL is asked for a dialect."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from router.common import option_texts as texts
from router.common.options import Section, Settings, option

OFF: Final = "off"
"""As a dialect's `auth_url`: no main server is asked, whatever `auth.url` is."""
_HEADER: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OF_THE_CONNECTION: Final = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers that say something of one connection or one body: to forward them would be wrong."""
_OF_THE_QUESTION: Final = frozenset(
    [
        "accept-encoding",
        "x-action",
        "x-channels",
        "x-dialect",
        "x-original-method",
        "x-original-uri",
        "x-user",
    ]
)
"""Headers that are the router's own: a client could say what it likes by them."""


def _url_or_none(text: str) -> str:
    return texts.url(text) if text else text


def _url_or_off(text: str) -> str:
    return text if text in ("", OFF) else texts.url(text)


def _header(text: str) -> str:
    name = text.lower()
    ours = name in _OF_THE_CONNECTION or name in _OF_THE_QUESTION or name.startswith("sec-websocket-")
    if ours or _HEADER.fullmatch(name) is None:
        raise ValueError(text)
    return name


@dataclass(frozen=True)
class AuthOptions(Section):
    SECTION: ClassVar[str] = "auth"
    HELP: ClassVar[str] = "The application's main server decides who may connect, and to which channels."

    url: str = option(
        "",
        "what the router asks before a client of any dialect is answered; empty: no main server",
        expects="an http:// or https:// URL with a host, without user and fragment",
        check=_url_or_none,
    )
    method: str = option(
        "get", "get asks with headers, post with a JSON object that has the same in it", choices=("get", "post")
    )
    headers: tuple[str, ...] = option(
        ("cookie", "authorization"),
        "headers of the client's request that the main server is shown",
        expects="a list of names of headers, without those of the connection itself (Host, Upgrade ...) and of "
        "the question (X-User, X-Channels ...)",
        check=_header,
    )
    timeout: float = option(
        5.0,
        "from a request until the main server's whole answer; beyond, the client gets 504, and so it does after "
        "worker.admission_timeout",
        unit="s",
        ge=0.1,
    )
    max_questions: int = option(
        100, "questions that the main server has at once, a connection each; others wait", unit="questions", ge=1
    )
    max_waiting: int = option(
        1000, "requests that may wait for an answer; beyond, the client gets 503", unit="requests", ge=1
    )
    max_waiting_bytes: int = option(
        16_777_216, "what those requests hold; beyond, the client gets 503", unit="bytes", ge=65_536
    )
    max_answer_bytes: int = option(
        16_384, "body of an answer; one that is longer allows nothing (502)", unit="bytes", ge=0, le=1_048_576
    )
    cache: float = option(
        5.0, "how long an answer that allows serves requests that are the same; 0: each is asked", unit="s", ge=0
    )
    cache_refusals: float = option(2.0, "the same for an answer that refuses (4xx)", unit="s", ge=0)
    cache_entries: int = option(10_000, "answers that are remembered; the oldest goes first", unit="answers", ge=1)
    cache_bytes: int = option(8_388_608, "what those answers hold; the oldest goes first", unit="bytes", ge=65_536)
    grace: float = option(
        60.0,
        "a connection whose grant has expired is kept for so long while the main server cannot be asked again; then "
        "it is closed with 1013",
        unit="s",
        ge=0,
    )


def auth_url_option() -> Any:
    """The option `auth_url` of a dialect's own section, which has the dialect's name."""
    return option(
        "",
        "what is asked instead of auth.url before a client of this dialect is answered; empty: that; off: none",
        expects="off, or an http:// or https:// URL with a host, without user and fragment",
        check=_url_or_off,
    )


def auth_url(settings: Settings, dialect: str) -> str:
    """What is asked before a client of this dialect is answered; empty: no main server. dialect: of several that share
    a path and so a URL, with commas between, the first will do."""
    dialect = dialect.partition(",")[0]
    own = next((getattr(section, "auth_url", "") for section in settings if dialect == section.SECTION), "")
    if own == OFF:
        return ""
    return own or settings.get(AuthOptions).url
