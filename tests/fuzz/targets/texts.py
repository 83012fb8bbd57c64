"""Texts that an operator has written, and tokens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import farm.config
import farm.option_value
import router.common.token
from farm.config import ConfigError, resolve
from farm.option_value import options_of
from farm.sections import all_sections
from fuzz.engine import Target
from fuzz.structures import check_problems
from router.common.token import KeyFormatError, TokenError, Tokens, parse_keys

# ---------------------------------------------------------------------- tokens

_PAYLOAD: Final = b"d" * 16 + b"0a1b2c3d-2222-3333-4444-555555555555"
_tokens = Tokens([b"k" * 32, b"o" * 32])
_TOKEN: Final = _tokens.seal(b"update", _PAYLOAD).encode()


def tokens(data: bytes) -> None:
    """A token; and a list of keys."""
    try:
        opened = _tokens.open(b"update", data)
    except TokenError:
        pass
    else:
        assert opened == _PAYLOAD, "a token that we never sealed"
        assert data.rstrip(b"=").translate(bytes.maketrans(b"+/", b"-_")) == _TOKEN, "two texts for one token"
    with contextlib.suppress(TokenError):
        _tokens.open(b"other", data)
        raise AssertionError("a token of another purpose")
    with contextlib.suppress(KeyFormatError):
        assert all(len(key) == 32 for key in parse_keys(data.decode("utf-8", "surrogateescape")))


# ---------------------------------------------------------------------- settings

_SECTIONS: Final = all_sections()
_NAMES: Final = [option.key for section in _SECTIONS for option in options_of(section)]


def settings(data: bytes) -> None:
    """A settings file; after a line with "---" come variables and flags, one a line."""
    text, _, rest = data.partition(b"\n---\n")
    environ: dict[str, str] = {}
    flags: list[tuple[str, str, object]] = []
    for line in rest.decode("utf-8", "surrogateescape").split("\n"):
        name, found, value = line.partition("=")
        if "\0" in line:
            continue
        if name.startswith("FARM_"):
            environ[name] = value
        elif line:
            flags.append(("--set", name, value if found else None))
    with _file(text) as file:
        try:
            resolve(_SECTIONS, file=file, environ=environ, assignments=flags)
        except ConfigError as error:
            check_problems(error.problems)


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    handle = os.memfd_create("settings")
    try:
        os.write(handle, data)
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


_SETTINGS: Final = (
    b"[listen]\nhost = \"127.0.0.1\"\ndevice_port = 0\n[store]\nkind = 'sqlite'\nsweep_interval = 1.5\n",
    b'[worker]\norigins = ["http://a"]\n\n---\nFARM_LISTEN_DEVICE_PORT=1\nlog.level=debug\nfarm.workers=auto\n',
    b"\n---\nFARM_ENDPOINT_URL=https://push.example.org\ntoken.keys=\nFARM_PORT=tcp://10.0.0.1:80\nlink.lease=1e3\n",
)
_SIGNS: Final = (b"= ", b"\n", b"[", b"]", b"'''", b'"""', b"auto", b"true", b"nan", b"1_0")
_PARTS: Final = (*(name.encode() for name in _NAMES[::3]), *_SIGNS)


TARGETS = (
    Target("tokens", tokens, (router.common.token,), (_TOKEN, _TOKEN + b"==", b"k" * 43, b"")),
    Target("settings", settings, (farm.config, farm.option_value), _SETTINGS, _PARTS),
)
