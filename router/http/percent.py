"""Percent-encoding (RFC 3986 2.1) and the fields of a query or form, in time that grows only with the text."""

from __future__ import annotations

import re
from typing import Final

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BYTE: Final = {b"%02x" % i: bytes([i]) for i in range(256)}


def unquote(text: bytes, errors: str = "replace") -> str:
    """The text behind the escapes, as UTF-8. What is no escape stays as it is. errors: of decoding; with "strict" it
    raises UnicodeDecodeError."""
    if b"%" in text:
        text = _ESCAPE.sub(lambda found: _BYTE[found[1].lower()], text)
    return text.decode("utf-8", errors)


def fields(text: bytes, errors: str = "replace") -> dict[str, str]:
    """Fields of a query or of a form that is sent as application/x-www-form-urlencoded; of a repeated one the first.
    errors: as of `unquote`."""
    found: dict[str, str] = {}
    for pair in text.replace(b"+", b" ").split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            found.setdefault(unquote(name, errors), unquote(value, errors))
    return found
