"""The scripts that run in Redis, and the names by which they are called. Their text stands in `redis_lua/`."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib import resources
from typing import NamedTuple


class Script(NamedTuple):
    """One that can be loaded."""

    text: str
    name: bytes
    """The SHA-1 of its text, in hexadecimal digits."""


def _script(*parts: str, first: str = "") -> Script:
    folder = resources.files("router.store") / "redis_lua"
    text = first + "".join((folder / f"{part}.lua").read_text() for part in ("common", *parts))
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


@cache
def apply_script() -> Script:
    """A batch of writes and reads."""
    return _script("inbox", "records", "logs", "apply")


@cache
def sweep_script() -> Script:
    """Deletes what has expired."""
    return _script("logs", "sweep")


@cache
def ownership_script() -> Script:
    """Acquires, renews and releases partitions, also where the server has no memory left."""
    return _script("ownership", first="#!lua flags=allow-oom\n")


# Now: later the files may be replaced by those of another release.
for _read in (apply_script, sweep_script, ownership_script):
    _read()
