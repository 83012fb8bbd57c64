"""push stream: the requests of publishers; paths, templates and positions."""

from __future__ import annotations

import json
from typing import Any, Final

from support.common import Rig

import router.dialects.pushstream.channels
import router.dialects.pushstream.positions
import router.dialects.pushstream.templates
from farm.transports.event_stream import place
from fuzz.engine import Target
from router.common.position import AfterTime, Last, LogEvent, position
from router.common.token import Tokens
from router.dialects.pushstream.channels import publisher_path, subscriber_path
from router.dialects.pushstream.positions import position as subscriber_position
from router.dialects.pushstream.protocol import DEFAULT_TEMPLATE, PushStreamOptions, Refused
from router.dialects.pushstream.templates import Message, Template

_OPTIONS: Final = PushStreamOptions(wildcard_channel_prefix="all_", wildcard_channel_max_qtd=2)
_TEMPLATE: Final = Template(DEFAULT_TEMPLATE)


def texts(data: bytes) -> None:
    """A line each: path, time, tag, id of an event, template, and a text, which may have more of them."""
    path, time, tag, event_id, template, text = (data.decode("utf-8", "replace").split("\n", 5) + [""] * 5)[:6]
    try:
        wanted = subscriber_path(path, _OPTIONS)
    except Refused as refused:
        assert 400 <= refused.answer.status < 500
        assert len(json.loads(refused.close_reason)) == 2
    else:
        assert len({one.name for one in wanted}) == len(wanted) > 0
        names = [one.name for one in wanted]
        assert publisher_path("/".join(names), _OPTIONS) == names
        for one in wanted:
            found = subscriber_position(one.backtrack, time, tag, event_id)
            assert position(list(found)) == found
            assert not one.backtrack or found == Last(one.backtrack)
    message = Message(1, path, text, 784_111_777, len(data), event_id, time)
    shown = json.loads(_TEMPLATE.fill(message))
    assert (shown["channel"], shown["text"], shown["eventid"]) == (path, text, event_id)
    assert Template(template).fill(message).decode() is not None
    own = place(LogEvent(1, 784_111_777, len(data), 784_111_778, event_id, {}, text))
    assert subscriber_position(None, "", "", own) == AfterTime(784_111_777, len(data))


SETTINGS: Final = (
    (
        PushStreamOptions,
        {"admin_key": "k", "events_channel_id": "events", "max_number_of_channels": 4, "allowed_origins": ("*",)},
    ),
)
REQUESTS: Final[tuple[list[Any], ...]] = (
    ["POST", "/pub", "id=a&admin_key=k", {"Event-Id": "e", "Event-Type": "t"}, "hello"],
    ["PUT", "/pub", "id=a/b%2Fc&admin_key=k", {"Accept": "application/xml"}, "hello"],
    ["GET", "/pub", "id=a&admin_key=k", {"Accept": "text/plain"}, ""],
    ["DELETE", "/pub", "id=a/b&admin_key=k", {}, "gone"],
    ["OPTIONS", "/pub", "id=a", {"Origin": "https://a.example"}, ""],
    ["GET", "/channels-stats", "id=ALL&admin_key=k", {"Accept": "application/yaml"}, ""],
    ["GET", "/channels-stats", "id=a*&admin_key=k", {}, ""],
    ["GET", "/channels-stats", "admin_key=k", {"Authorization": "Bearer k"}, ""],
)


def prepare(rig: Rig, keys: Tokens) -> dict[bytes, str]:
    """Nothing."""
    return {}


TARGETS = (
    Target(
        "pushstream-texts",
        texts,
        (
            router.dialects.pushstream.channels,
            router.dialects.pushstream.positions,
            router.dialects.pushstream.templates,
        ),
        (
            b'a.b3/all_c\nSun, 06 Nov 1994 08:49:37 GMT\nW/12\n\n{"x":"~text~",\'~channel~\'}\nsay "hi"',
            b"/ALL/\n\n\n784111777:3\n~id~~tag~~time~~size~\n",
            b"a\n\n12\nown\n'~text~'\n</script>'",
        ),
        (b"/", b".b", b"*", b"all_", b"~text~", b"~event-id~", b'"', b"'", b"\\", b"W/", b":"),
    ),
)
