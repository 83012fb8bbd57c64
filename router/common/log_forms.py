"""The forms of a log line: readable text, one JSON object, and logfmt. No value can break out of its line. Pure.

    2026-01-31T12:00:00.250Z info worker[0] drain devices=12000 seconds=10.0
    {"time":"2026-01-31T12:00:00.250Z","level":"info","process":"worker","shard":0,"event":"drain","devices":12000,...}
    time=2026-01-31T12:00:00.250Z level=info process=worker shard=0 event=drain devices=12000 seconds=10.0

For systemd's journal each begins with the priority that sd-daemon(3) defines, as `<6>`, and has no time: the journal
has its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

MAX_VALUE_CHARS: Final = 4096  # a longer value is cut: a log line is for reading, and a trace fits in this
FIELDS: Final = "farm_fields"
"""The attribute of a log record that holds the event's fields."""
_PRIORITIES: Final = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"))
_DEBUG: Final = "<7>"


def form(name: str, process_fields: Mapping[str, object], journal: bool = False) -> logging.Formatter:
    """The form of this name: text, json or logfmt. journal: whether it is for systemd's journal.

    Raises: ValueError for another name.
    """
    if name not in _FORMS:
        raise ValueError(f"unknown log format: {name!r}")
    return _FORMS[name](process_fields, journal)


class _Form(logging.Formatter):
    """What all share: a record as time, level, event and fields."""

    def __init__(self, process_fields: Mapping[str, object], journal: bool) -> None:
        super().__init__()
        self._process_fields = dict(process_fields)
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line = self.line("" if self._journal else _timestamp(record), record)
        return f"{priority(record.levelno)}{line}" if self._journal else line

    def line(self, time: str, record: logging.LogRecord) -> str:
        """The record. time: empty if it is to have none."""
        raise NotImplementedError

    def _head(self, time: str, record: logging.LogRecord) -> dict[str, object]:
        """What stands before the fields, where everything has a key."""
        found: dict[str, object] = {"time": time} if time else {}
        found["level"] = record.levelname.lower()
        found |= self._process_fields
        found["event"] = self._event(record)
        return found

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields = getattr(record, FIELDS, None)
        # Not ours: a library's line. Its text is no constant, so it stands in a field like any other value.
        found = dict(fields) if fields is not None else {"logger": record.name, "message": _message(record)}
        if record.exc_info and record.exc_info[1] is not None:
            exc = record.exc_info[1]
            found["error"] = f"{type(exc).__name__}: {_text(exc)}"
            found["trace"] = self.formatException(record.exc_info)
        return found

    def _event(self, record: logging.LogRecord) -> str:
        return _message(record) if hasattr(record, FIELDS) else "library"


class _Text(_Form):
    def __init__(self, process_fields: Mapping[str, object], journal: bool) -> None:
        super().__init__(process_fields, journal)
        rest = dict(process_fields)
        who = _plain(rest.pop("process", "farm"))
        for number in ("shard", "router"):
            if number in rest:
                who = f"{who}[{_plain(rest.pop(number))}]"
        self._who = who
        self._rest = rest

    def line(self, time: str, record: logging.LogRecord) -> str:
        fields = self._rest | self._fields(record)
        words = [time] if time else []
        words += [record.levelname.lower(), self._who, _plain(self._event(record))]
        words.extend(f"{_plain(key)}={_plain(value)}" for key, value in fields.items())
        return " ".join(words)


class _Json(_Form):
    def line(self, time: str, record: logging.LogRecord) -> str:
        line = self._head(time, record)
        for key, value in self._fields(record).items():
            line[key if key not in line else f"{key}_"] = _jsonable(value)
        # ASCII only: whatever reads the line later, no character of a value has a meaning to it.
        return json.dumps(line, ensure_ascii=True, default=_text, separators=(",", ":"))


class _Logfmt(_Form):
    def line(self, time: str, record: logging.LogRecord) -> str:
        pairs = self._head(time, record)
        for key, value in self._fields(record).items():
            pairs[key if key not in pairs else f"{key}_"] = value
        return " ".join(f"{_key(key)}={_pair_value(value)}" for key, value in pairs.items())


_FORMS: Final[Mapping[str, type[_Form]]] = {"text": _Text, "json": _Json, "logfmt": _Logfmt}
FORMATS: Final = tuple(_FORMS)


def priority(level: int) -> str:
    """How a line of this level begins for the journal."""
    return next((text for lowest, text in _PRIORITIES if level >= lowest), _DEBUG)


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a library's wrong format string must not cost the line
        return str(record.msg)


def printable(text: str, instead: str = "?") -> str:
    """The text without what breaks a line, or what a terminal may obey."""
    return "".join(c if c.isprintable() else instead for c in text)


def _text(value: object) -> str:
    """Any value as text of bounded length. Never raises."""
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value[: MAX_VALUE_CHARS // 2 + 1]).hex()
    else:
        try:
            text = str(value)
        except Exception as exc:
            text = f"<{type(value).__name__}: {type(exc).__name__} in str()>"
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}..."


def _plain(value: object) -> str:
    """A value in a text line: bare if it is one harmless word, else quoted as JSON quotes, nothing
    unprintable.
    """
    text = _text(value)
    if text and text.isprintable() and not any(c in ' "=\\' for c in text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)


def _key(key: str) -> str:
    """A key has no quotes in logfmt."""
    return "".join(c if c.isprintable() and c not in ' "=' else "_" for c in _text(key)) or "_"


def _pair_value(value: object) -> str:
    """Booleans and nothing as other programs write them; the rest as in text."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else _plain(value)


def _jsonable(value: object) -> Any:
    """Numbers, booleans and null stay what they are; JSON has no NaN and no infinity, so those become
    text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _text(value)  # beyond, few readers can take it
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, list | tuple):
        # One level only: a list may contain itself.
        return [_text(item) if isinstance(item, list | tuple) else _jsonable(item) for item in value[:MAX_VALUE_CHARS]]
    return _text(value)
