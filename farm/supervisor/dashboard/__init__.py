"""The dashboard at `/` of the admin port: one page, made once of the files of this package.

It loads nothing besides and shows only what `/api/v1` answers. Its policy allows just this script and this style, by
their hashes, and no text can become HTML (Trusted Types without a policy, where the browser has them).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

SCRIPTS: Final = (
    "base.js",
    "dialogs.js",
    "chart.js",
    "overview.js",
    "devices.js",
    "device.js",
    "channels.js",
    "processes.js",
    "broadcasts.js",
    "log.js",
    "main.js",
)
"""In this order they are one script."""
_STYLE: Final = "dashboard.css"
_POLICY: Final = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)


@dataclass(frozen=True, slots=True)
class Page:
    """The page, and the headers that belong to it."""

    body: bytes
    headers: dict[str, str]


@cache
def page() -> Page:
    """What `GET /` answers."""
    style = _file(_STYLE)
    script = '"use strict";\n(() => {\n' + "\n".join(_file(name) for name in SCRIPTS) + "\n})();\n"
    body = _file("index.html").replace("{{style}}", style).replace("{{script}}", script)
    policy = _POLICY.format(script=_hash(script), style=_hash(style))
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    return Page(body.encode(), headers)


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
