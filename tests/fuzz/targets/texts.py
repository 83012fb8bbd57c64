"""Texts that an operator, an app server or a sender of push messages has written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.webpush_vapid import Sender

import farm.config
import farm.option_value
import router.common.token
import router.dialects.pusher.applications
import router.dialects.webpush.vapid
from farm.config import ConfigError, resolve
from farm.option_value import options_of
from farm.settings import all_sections
from fuzz.engine import Target
from fuzz.structures import json_lines
from router.common.token import KeyFormatError, TokenError, Tokens, parse_keys
from router.dialects.pusher.applications import AppsError
from router.dialects.webpush.vapid import Vapid, VapidError

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
            _told(error.problems)


def apps(data: bytes) -> None:
    """A file of applications."""
    try:
        found = router.dialects.pusher.applications.parse(data, "apps.json")
    except AppsError as error:
        _told(error.problems)
    else:
        for app in found.apps:
            assert app.id and app.key and app.secret


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    handle = os.memfd_create("settings")
    try:
        os.write(handle, data)
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def _told(problems: tuple[str, ...]) -> None:
    """Each is a line that can be printed."""
    assert problems
    for problem in problems:
        assert "\n" not in problem and len(problem) < 5000, problem


# ---------------------------------------------------------------------- VAPID

_NOW: Final = 1_700_000_000
_ORIGIN: Final = "https://push.example.org"
_sender = Sender()
_CLAIMS: Final = {"aud": _ORIGIN, "exp": _NOW + 3600, "sub": "mailto:a@b.c"}
_SIGNED: Final = _sender.vapid(_CLAIMS)
_BEARER: Final = b"WebPush " + _sender.token(_CLAIMS).encode()
_CRYPTO_KEY: Final = b"p256ecdsa=" + _sender.public.encode()


def vapid(data: bytes) -> None:
    """The Authorization and Crypto-Key headers of a push, a line each."""
    authorization, _, crypto_key = data.partition(b"\n")
    checker = Vapid(_ORIGIN, max_age=86_400, max_bytes=2048, leeway=10, cache=10, unix_time=lambda: _NOW)
    with contextlib.suppress(VapidError):
        digest = checker.check(authorization, crypto_key)
        assert digest == checker.check(_SIGNED), "signed by nobody"


_SETTINGS: Final = (
    b"[listen]\nhost = \"127.0.0.1\"\ndevice_port = 0\n[store]\nkind = 'sqlite'\nsweep_interval = 1.5\n",
    b'[worker]\norigins = ["http://a"]\n\n---\nFARM_LISTEN_DEVICE_PORT=1\nlog.level=debug\nfarm.workers=auto\n',
    b"\n---\nFARM_ENDPOINT_URL=https://push.example.org\ntoken.keys=\nFARM_PORT=tcp://10.0.0.1:80\nlink.lease=1e3\n",
)
_APPS: Final = tuple(
    json.dumps(one).encode()
    for one in (
        {"applications": [{"id": "1", "name": "a", "key": "k", "secret": "s", "client_messages": True}]},
        {"Applications": [{"name": "a", "key": "k", "secret": "s", "webhooks": [{"url": "http://a/", "events": []}]}]},
        {"host": "a", "port": 1, "certificate": None, "redis": {"address": ""}, "applications": []},
    )
)
_SIGNS: Final = (b"= ", b"\n", b"[", b"]", b"'''", b'"""', b"auto", b"true", b"nan", b"1_0")
_PARTS: Final = (*(name.encode() for name in _NAMES[::3]), *_SIGNS)


TARGETS = (
    Target("tokens", tokens, (router.common.token,), (_TOKEN, _TOKEN + b"==", b"k" * 43, b"")),
    Target("settings", settings, (farm.config, farm.option_value), _SETTINGS, _PARTS),
    Target(
        "apps", apps, (router.dialects.pusher.applications,), _APPS, (b"applications", b"null", b'"id"'), json_lines()
    ),
    Target(
        "vapid",
        vapid,
        (router.dialects.webpush.vapid,),
        (_SIGNED, _BEARER + b"\n" + _CRYPTO_KEY, b"vapid t=a.b.c,k=d"),
        (b"vapid", b"t=", b"k=", b", ", b"=", b'"', b".", b";", _CRYPTO_KEY),
    ),
)
