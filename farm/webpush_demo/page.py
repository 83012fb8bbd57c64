"""What the demo shows: the page with its values filled in, and the files beside it. Pure but for its own files."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Final
from urllib.parse import urlsplit

FILES: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "arrivals.js": "text/javascript; charset=utf-8",
    "worker.js": "text/javascript; charset=utf-8",
}
"""Name to media type of what the page loads; it loads nothing from elsewhere."""

SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Pref:
    """One preference of Firefox."""

    name: str
    value: str | bool

    @property
    def text(self) -> str:
        """The value as about:config shows it."""
        return self.value if isinstance(self.value, str) else str(self.value).lower()

    @property
    def line(self) -> str:
        """The preference as a line of user.js."""
        return f"user_pref({json.dumps(self.name)}, {json.dumps(self.value)});"


def prefs(device_url: str) -> tuple[Pref, ...]:
    """What makes Firefox use a push server, in the order in which they are to be set.

    The order matters: Firefox looks whether ws:// is allowed only at the moment when the address changes.
    """
    server = Pref("dom.push.serverURL", device_url)
    if urlsplit(device_url).scheme == "wss":
        return (server,)
    return Pref("dom.push.testing.allowInsecureServerURL", True), server


def fresh_profile(needed: Sequence[Pref], page_url: str) -> str:
    """A shell line that opens the page in a Firefox with a new profile that has the preferences."""
    lines = " ".join(shlex.quote(pref.line) for pref in needed)
    opened = f'firefox --new-instance --profile "$dir" {shlex.quote(page_url)}'
    return f"dir=$(mktemp -d) && printf '%s\\n' {lines} > \"$dir/user.js\" && {opened}"


def build(page_url: str, endpoint_url: str, device_url: str, public_key: str) -> str:
    """The page.

    Args:
        page_url: where it is served.
        endpoint_url: public base of the farm's endpoints.
        device_url: what Firefox connects to.
        public_key: the demo's VAPID key, base64url.
    """
    needed = prefs(device_url)
    values = {
        "endpoint_url": endpoint_url,
        "device_url": device_url,
        "public_key": public_key,
        "profile_line": fresh_profile(needed, page_url),
    }
    rows = "".join(_row(number, pref) for number, pref in enumerate(needed, 1))
    template = Template(file("page.html").decode())
    return template.substitute({name: html.escape(value) for name, value in values.items()}, pref_rows=rows)


def _row(number: int, pref: Pref) -> str:
    name, value = html.escape(pref.name), html.escape(pref.text)
    kind = "String" if isinstance(pref.value, str) else "Boolean"
    return (
        f'<tr><th scope="row"><code id="pref-{number}">{name}</code>'
        f'<button type="button" data-copy="pref-{number}">copy</button></th>'
        f'<td><code id="value-{number}">{value}</code>'
        f'<button type="button" data-copy="value-{number}">copy</button></td><td>{kind}</td></tr>'
    )


def file(name: str) -> bytes:
    """A file of this package."""
    return resources.files(__package__).joinpath(name).read_bytes()
