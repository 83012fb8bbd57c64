"""`farm demo` as a process of its own, and what there is for it to push to and to load."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any, Final

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.farm_fixture import ROOT, STOP_S, Farm, environ

_URL: Final = re.compile(r"http://localhost:\d+/")


@contextmanager
def running_demo(*arguments: str) -> Iterator[str]:
    """A demo on a free port for the time of the block. It must end by SIGTERM with exit code 0. Yields: its URL."""
    command = [sys.executable, "-m", "farm", "demo", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environ(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = _URL.search(process.stdout.readline())
            assert found, "farm demo prints its URL"
            yield found[0]
        finally:
            process.terminate()
            code = process.wait(STOP_S)
        assert code == 0


def addresses(farm: Farm) -> tuple[str, ...]:
    """The flags that point a demo at a farm."""
    return ("--router-url", farm.url(""), "--device-url", farm.device_url)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Receiver:
    """The keys that a browser makes for a subscription."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._auth = os.urandom(16)

    @property
    def keys(self) -> dict[str, str]:
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {"p256dh": base64url(point), "auth": base64url(self._auth)}

    def decrypted(self, body: bytes) -> Any:
        plain = http_ece.decrypt(body, private_key=self._key, auth_secret=self._auth, version="aes128gcm")
        return json.loads(plain)


class Loads(HTMLParser):
    """What a page loads, and the text of its elements by id."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.texts: dict[str, str] = {}
        self.body: dict[str, str | None] = {}
        self._id = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._id = found.get("id") or ""
        self.sources += [str(found[name]) for name in ("src", "href") if name in found]
        if tag == "body":
            self.body = found

    def handle_data(self, data: str) -> None:
        if self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._id = ""
