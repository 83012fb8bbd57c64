"""Statistics as JSON, plain text, YAML and XML, in the module's shapes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

import msgspec

_encode = msgspec.json.Encoder().encode
_END: Final = "\r\n"


class ChannelInfo(NamedTuple):
    """The numbers of a channel."""

    channel: str
    published_messages: int
    stored_messages: int
    subscribers: int


class Head(NamedTuple):
    """What statistics of several channels begin with."""

    hostname: str
    time: str
    """Local, ISO 8601."""
    channels: int
    wildcard_channels: int
    uptime: int
    """Seconds."""


class WorkerInfo(NamedTuple):
    """The numbers of a worker."""

    pid: int
    subscribers: int
    uptime: int


class Summary(NamedTuple):
    """The numbers of all channels together. What the module has in its trash is gone here at once."""

    published_messages: int
    stored_messages: int
    subscribers: int
    by_worker: Sequence[WorkerInfo]


Rows = list[tuple[str, str | int]]


def _summary_rows(head: Head, summary: Summary) -> Rows:
    return [
        ("hostname", head.hostname),
        ("time", head.time),
        ("channels", head.channels),
        ("wildcard_channels", head.wildcard_channels),
        ("published_messages", summary.published_messages),
        ("stored_messages", summary.stored_messages),
        ("messages_in_trash", 0),
        ("channels_in_delete", 0),
        ("channels_in_trash", 0),
        ("subscribers", summary.subscribers),
        ("uptime", head.uptime),
    ]


def _rows(info: ChannelInfo | Head | WorkerInfo) -> Rows:
    return list(info._asdict().items())


# ---------------------------------------------------------------------- JSON


def _json_object(rows: Rows, *more: str) -> str:
    members = [f'"{name}": {_encode(value).decode()}' for name, value in rows]
    return "{" + ", ".join([*members, *more]) + "}"


def _json_worker(worker: WorkerInfo) -> str:
    return _json_object([("pid", str(worker.pid)), ("subscribers", worker.subscribers), ("uptime", worker.uptime)])


def _json_list(name: str, items: Iterable[str]) -> str:
    return f'"{name}": [{_END}' + f",{_END}".join(items) + f"{_END}]"


def _json_channel(info: ChannelInfo) -> str:
    name, published, stored, subscribers = info
    return (  # every publisher is sent this, so it is one format
        f'{{"channel": {_encode(name).decode()}, "published_messages": {published}, '
        f'"stored_messages": {stored}, "subscribers": {subscribers}}}'
    )


def _json_one(info: ChannelInfo) -> str:
    return _json_channel(info) + _END


def _json_group(head: Head, items: Iterable[str]) -> str:
    return _json_object(_rows(head), _json_list("infos", items)) + _END


def _json_summary(head: Head, summary: Summary) -> str:
    workers = _json_list("by_worker", map(_json_worker, summary.by_worker))
    return _json_object(_summary_rows(head, summary), workers) + _END


# ---------------------------------------------------------------------- plain text


def _lines(rows: Rows, indent: str = "") -> str:
    return _END.join(f"{indent}{name}: {value}" for name, value in rows)


def _plain_channel(info: ChannelInfo) -> str:
    return _lines([*_rows(info)[:3], ("active_subscribers", info.subscribers)])


def _plain_one(info: ChannelInfo) -> str:
    return _plain_channel(info) + _END


def _plain_group(head: Head, items: Iterable[str]) -> str:
    start = ", ".join(f"{name}: {value}" for name, value in _rows(head))
    return f"{start}, infos: {_END}" + f",{_END}".join(items) + _END


def _plain_summary(head: Head, summary: Summary) -> str:
    workers = f",{_END}".join(_lines(_rows(worker), "  ") for worker in summary.by_worker)
    return _lines(_summary_rows(head, summary)) + f"{_END}by_worker:{_END}{workers}{_END}"


# ---------------------------------------------------------------------- YAML


def _yaml(rows: Rows) -> Rows:
    """A text that YAML could take for something else is quoted as in JSON, which is YAML."""
    return [(name, value if isinstance(value, int) else _yaml_text(value)) for name, value in rows]


def _yaml_text(text: str) -> str:
    plain = text.isascii() and text.replace("_", "a").replace("-", "a").isalnum() and text[:1].isalpha()
    return text if plain and text.lower() not in _YAML_WORDS else _encode(text).decode()


_YAML_WORDS: Final = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null"))


def _yaml_item(rows: Rows, indent: str) -> str:
    return f"{indent}-{_END}{_lines(_yaml(rows), indent + ' ')}{_END}"


def _yaml_channel(info: ChannelInfo) -> str:
    return _yaml_item(_rows(info), " ")


def _yaml_one(info: ChannelInfo) -> str:
    return _lines(_yaml(_rows(info)), "  ") + _END


def _yaml_group(head: Head, items: Iterable[str]) -> str:
    return _lines(_yaml(_rows(head))) + f"{_END}infos: {_END}" + "".join(items) + _END


def _yaml_summary(head: Head, summary: Summary) -> str:
    start = _lines(_yaml(_summary_rows(head, summary)), "  ")
    workers = "".join(_yaml_item(_rows(worker), "   ") for worker in summary.by_worker)
    return f"{start}{_END}  by_worker:{_END}{workers}{_END}"


# ---------------------------------------------------------------------- XML


_XML: Final = f'<?xml version="1.0" encoding="UTF-8" ?>{_END}'


def _elements(rows: Rows) -> str:
    return "".join(f"  <{name}>{escape(str(value))}</{name}>{_END}" for name, value in rows)


def _xml_channel(info: ChannelInfo) -> str:
    return f"<channel>{_END}{_elements([('name', info.channel), *_rows(info)[1:]])}</channel>{_END}"


def _xml_one(info: ChannelInfo) -> str:
    return _XML + _xml_channel(info)


def _xml_group(head: Head, items: Iterable[str]) -> str:
    channels = "".join(items)
    return f"{_XML}<root>{_END}{_elements(_rows(head))}  <infos>{_END}{channels}  </infos>{_END}</root>{_END}"


def _xml_summary(head: Head, summary: Summary) -> str:
    workers = "".join(f"<worker>{_END}{_elements(_rows(worker))}</worker>{_END}" for worker in summary.by_worker)
    start = _elements(_summary_rows(head, summary))
    return f"{_XML}<infos>{_END}{start}  <by_worker>{workers}</by_worker>{_END}</infos>{_END}"


# ---------------------------------------------------------------------- which


class Format(NamedTuple):
    """How statistics are written."""

    one: Callable[[ChannelInfo], str]
    item: Callable[[ChannelInfo], str]
    """A channel among several, for `group`."""
    group: Callable[[Head, Iterable[str]], str]
    summary: Callable[[Head, Summary], str]


JSON: Final = Format(_json_one, _json_channel, _json_group, _json_summary)
_PLAIN: Final = Format(_plain_one, _plain_channel, _plain_group, _plain_summary)
_YAML: Final = Format(_yaml_one, _yaml_channel, _yaml_group, _yaml_summary)
_XML_FORMAT: Final = Format(_xml_one, _xml_channel, _xml_group, _xml_summary)
_BY_SUBTYPE: Final = {
    "plain": ("text/plain", _PLAIN),
    "json": ("application/json", JSON),
    "yaml": ("application/yaml", _YAML),
    "xml": ("application/xml", _XML_FORMAT),
    "x-json": ("text/x-json", JSON),
    "x-yaml": ("text/x-yaml", _YAML),
}


def format_of(accept: bytes) -> tuple[str, Format]:
    """The content type and the format for a header Accept: the first that is known, else JSON."""
    for part in accept.decode("latin-1").lower().split(","):
        found = _BY_SUBTYPE.get(part.partition(";")[0].strip().rpartition("/")[2])
        if found is not None:
            return found
    return _BY_SUBTYPE["json"]
