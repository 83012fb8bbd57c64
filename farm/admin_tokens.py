"""The tokens of the admin port, from the settings: that of the role act, and that of the role read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from farm.settings import AdminOptions
from router.common.admin_address import is_loopback, token_of_file
from router.common.files import FileError
from router.common.options import Settings
from router.common.settings import Listen

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


def _one(name: str, token: str, file: str) -> bytes:
    if token and file:
        raise FileError(f"{name} and {name}_file are both set: remove one of them")
    return (token_of_file(f"{name}_file", Path(file)) if file else token).encode()


def without_tokens(settings: Settings) -> Settings:
    """For processes that have no use for them."""
    return settings.replace(AdminOptions, token="", token_file="", read_token="", read_token_file="")
