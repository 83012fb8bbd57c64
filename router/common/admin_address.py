"""Where an admin port is, as the user of a command named it, and which token may go there. Pure but for files.

A token is sent only where it was meant to go, whatever the command:

- one that was given for this address (in a file that the command names, or as `http://:TOKEN@HOST`) goes there;
- one of the settings belongs to the farm that has these settings, so it goes to this machine and to the names that
  the settings have for the admin port, and nowhere else: another host would have it for the asking.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from router.common.files import FileError, read_secret

TOKEN: Final = re.compile(r"[!-~]{16,512}")
"""A token of the admin port."""
_MAX_BYTES: Final = 4096


class AddressError(ValueError):
    """No address of an admin port; in one line, without any token."""


@dataclass(frozen=True, slots=True)
class AdminAddress:
    """An admin port. url: `http://HOST:PORT`, with nothing secret in it. token: the one that stood in it, or ""."""

    url: str
    host: str
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, text: str) -> AdminAddress:
        """Of a URL; its path is left out. Raises: AddressError."""
        shown = without_token(text)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise AddressError(f"{shown}: expected an http:// or https:// URL") from None
        if parts.scheme not in ("http", "https") or not host:
            raise AddressError(f"{shown}: expected an http:// or https:// URL")
        place = f"[{host}]" if ":" in host else host
        url = f"{parts.scheme}://{place}" + ("" if port is None else f":{port}")
        return cls(url, host, unquote(parts.password or ""))

    def may_have(self, names: Iterable[str] = ()) -> bool:
        """Whether a token of the settings is meant for this host. names: those that the settings have for it."""
        return is_loopback(self.host) or self.host in {name.lower() for name in names}


def without_token(url: str) -> str:
    """A URL as it may be shown and written down, even if it is none."""
    return re.sub(r"//.*@", "//", url, flags=re.DOTALL)


def is_loopback(host: str) -> bool:
    """Whether this address or name is of this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def token_of_file(name: str, path: Path) -> str:
    """The token in a file. name: of what names the file. Raises: FileError."""
    try:
        text = read_secret(path, _MAX_BYTES).decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    except FileError as error:
        raise FileError(*(f"{name}: {problem}" for problem in error.problems)) from None
    if not TOKEN.fullmatch(text):
        raise FileError(f"{name}: {path} holds no token: 16 to 512 visible characters, as `openssl rand -hex 32` makes")
    return text
