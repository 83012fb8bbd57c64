"""Where a server is, from its URL. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote, urlsplit

PORT: Final = 6379
SENTINEL_PORT: Final = 26_379
_SCHEMES: Final = ("redis", "rediss")


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and how this farm logs in. The password is in no representation and so in no log."""

    host: str
    port: int
    tls: bool = False
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (f"/{self.database}" if self.database else "")


def parse(url: str) -> Address:
    """redis://[user][:password@]host[:port][/database], or rediss:// for TLS.

    Raises: ValueError.
    """
    parts = urlsplit(url)
    database = parts.path.removeprefix("/")
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("no redis:// or rediss:// URL with a host")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("a database is a number")
    return Address(
        parts.hostname,
        PORT if parts.port is None else parts.port,
        parts.scheme == "rediss",
        int(database or 0),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def parse_sentinel(text: str) -> Address:
    """host[:port] of a Sentinel, or a URL as `parse` has it.

    Raises: ValueError.
    """
    if "://" in text:
        return parse(text)
    address = parse(f"redis://{text}")
    if address.database or address.user or address.password:
        raise ValueError("no host and port")
    return address if urlsplit(f"redis://{text}").port is not None else replace(address, port=SENTINEL_PORT)


def sentinel(text: str) -> str:
    """The text, if it is one of those.

    Raises: ValueError.
    """
    parse_sentinel(text)
    return text


def url(text: str) -> str:
    """The text, if it is such a URL.

    Raises: ValueError, without the text: a password may stand in it.
    """
    parse(text)
    return text
