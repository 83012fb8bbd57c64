"""The tokens of the admin port, from the settings: that of the role act, and that of the role read."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from farm.settings import TOKEN, AdminOptions
from router.common.files import FileError, read_secret
from router.common.options import Settings
from router.common.settings import Listen

_MAX_BYTES: Final = 4096
_REMEDY: Final = (
    "listen.admin_host is {}, so others may reach the admin port: set admin.token_file (or admin.token), or listen on "
    "127.0.0.1"
)


@dataclass(frozen=True, slots=True)
class AdminTokens:
    """Bytes as they come in a header; b"": there is none of this role."""

    act: bytes = field(default=b"", repr=False)
    read: bytes = field(default=b"", repr=False)

    def __bool__(self) -> bool:
        return bool(self.act or self.read)


def admin_tokens(settings: Settings) -> AdminTokens:
    """Those of the settings, and of the files that they name. Raises: FileError."""
    options = settings.get(AdminOptions)
    return AdminTokens(
        _one("admin.token", options.token, options.token_file),
        _one("admin.read_token", options.read_token, options.read_token_file),
    )


def problems(settings: Settings) -> list[str]:
    """A line for each thing that is wrong with them."""
    try:
        tokens = admin_tokens(settings)
    except FileError as error:
        return list(error.problems)
    host = settings.get(Listen).admin_host
    return [] if tokens or is_loopback(host) else [_REMEDY.format(host)]


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


def _one(name: str, token: str, file: str) -> bytes:
    if token and file:
        raise FileError(f"{name} and {name}_file are both set: remove one of them")
    return (token_of_file(f"{name}_file", Path(file)) if file else token).encode()


def without_tokens(settings: Settings) -> Settings:
    """For processes that have no use for them."""
    return settings.replace(AdminOptions, token="", token_file="", read_token="", read_token_file="")
