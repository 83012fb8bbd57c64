"""Channel paths, templates and positions of push stream."""

import json
from dataclasses import replace

import pytest

from farm.transports.event_stream import place
from router.common.operation import encoded
from router.common.position import LAST_TAG, LIVE, NO_TIME, AfterId, AfterTime, Last, LogEvent
from router.dialects.pushstream.channels import Wanted, is_wildcard, publisher_path, subscriber_path
from router.dialects.pushstream.positions import http_time, position, tag_of, unix_time
from router.dialects.pushstream.protocol import (
    BAD_ID,
    DEFAULT_TEMPLATE,
    HEADER_ID,
    HEADER_TYPE,
    LONG_ID,
    NO_CHANNEL,
    NO_EVENTS,
    NOT_AUTHORIZED,
    SUBSCRIBERS,
    TOO_MANY_IDS,
    TOO_MANY_WILDCARDS,
    PushStreamOptions,
    Refused,
    channel_address,
    label,
    refusal_of,
    refusal_text,
)
from router.dialects.pushstream.templates import Message, Template, message_of

OPTIONS = PushStreamOptions()
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
TIME = 784111777


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", [("a", None)]),
        ("/a.b3/c/", [("a", 3), ("c", None)]),
        ("a.b/b.b2.b1/x.bb4", [("a.b", None), ("b.b2", 1), ("x.bb4", None)]),
        ("a/b//a.b2/a.b5/b", [("a", 5), ("b", None)]),
        ("a.b0", [("a", 0)]),
        ("a.b99999999999999999999", [("a", 2**31 - 1)]),
        (".b3", [(".b3", None)]),
    ],
)
def test_what_a_subscriber_names(path: str, found: list[tuple[str, int | None]]) -> None:
    assert subscriber_path(path, OPTIONS) == [Wanted(*one) for one in found]


def test_what_a_publisher_names_has_no_backtrack() -> None:
    assert publisher_path("/a.b3/c/a.b3", OPTIONS) == ["a.b3", "c"]


@pytest.mark.parametrize(
    ("path", "changes", "refused"),
    [
        ("", {}, NO_CHANNEL),
        ("//", {}, NO_CHANNEL),
        ("x" * 201, {}, LONG_ID),
        ("ALL", {}, NOT_AUTHORIZED),
        ("a/b*", {}, NOT_AUTHORIZED),
        ("a\0b", {}, BAD_ID),
        ("a\r\nb", {}, BAD_ID),
        ("a/b/c", {"max_channels_a_connection": 2, "max_channels_a_request": 2}, TOO_MANY_IDS),
    ],
)
def test_paths_that_are_refused(path: str, changes: dict[str, int], refused: object) -> None:
    options = replace(OPTIONS, **changes)
    for parse in (subscriber_path, publisher_path):
        with pytest.raises(Refused) as caught:
            parse(path, options)
        assert caught.value.answer is refused


def test_the_length_of_an_id_is_without_its_backtrack() -> None:
    assert subscriber_path("x" * 200 + ".b10", OPTIONS) == [("x" * 200, 10)]


def test_wildcards_are_counted_and_need_another_channel() -> None:
    options = replace(OPTIONS, wildcard_channel_prefix="broad_", wildcard_channel_max_qtd=2)
    assert len(subscriber_path("broad_a/broad_b/c", options)) == 3
    for path in ("broad_a/broad_b/broad_c/d", "broad_a"):
        with pytest.raises(Refused) as caught:
            subscriber_path(path, options)
        assert caught.value.answer is TOO_MANY_WILDCARDS
    assert is_wildcard("broad_a", options)
    assert not is_wildcard("a", options)
    assert not is_wildcard("", OPTIONS)
    unlimited = replace(options, wildcard_channel_max_qtd=0)
    assert subscriber_path("broad_a/broad_b/broad_c", unlimited)
    with pytest.raises(Refused):
        subscriber_path("broad_a", replace(unlimited, authorized_channels_only=True))


def test_the_events_channel_is_closed_unless_the_settings_open_it() -> None:
    options = replace(OPTIONS, events_channel_id="events")
    with pytest.raises(Refused) as caught:
        subscriber_path("a/events", options)
    assert caught.value.answer is NO_EVENTS
    assert subscriber_path("events", replace(options, allow_connections_to_events_channel=True)) == [("events", None)]


def test_a_refusal_goes_over_the_link() -> None:
    for answer in (TOO_MANY_WILDCARDS, TOO_MANY_IDS):
        found = refusal_of(encoded(refusal_text(answer)))
        assert found is not None
        assert (found.status, found.text) == (answer.status, answer.text)
    assert refusal_of(encoded(refusal_text(None))) is None


def test_addresses_are_those_of_the_dialect() -> None:
    assert channel_address("a") != channel_address("b")
    assert label("a") == "pushstream\0\0a"


def test_refusals_of_a_websocket_are_short_enough_for_a_close_frame() -> None:
    for answer in SUBSCRIBERS.rows:
        reason = Refused(answer).close_reason  # type: ignore[arg-type]
        assert len(reason) <= 123
        assert set(json.loads(reason)) == {"http_status", "explain"}


# ---------------------------------------------------------------------- templates


MESSAGE = Message(7, "c", 'say "hi"\n\u20ac\\', TIME, 12, "e'1", "t")


def test_the_default_template_is_what_pushstream_js_reads() -> None:
    assert json.loads(Template(DEFAULT_TEMPLATE).fill(MESSAGE)) == {
        "id": 7,
        "channel": "c",
        "text": MESSAGE.text,
        "tag": "12",
        "time": DATE,
        "eventid": "e'1",
    }


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("~text~", MESSAGE.text),
        ("", ""),
        ("nothing ~here~ ~", "nothing ~here~ ~"),
        ("~id~:~channel~:~tag~:~size~:~event-type~~", "7:c:12:13:t~"),
        ('{"a\\"~text~"}', '{"a\\"say \\"hi\\"\\n\u20ac\\\\"}'),
        ('"x":~text~', f'"x":{MESSAGE.text}'),
        ("p(~id~,'~event-id~','~text~');", "p(7,'e\\u00271','say \\\"hi\\\"\\n\u20ac\\\\');"),
        ("it's ~text~", f"it's {MESSAGE.text}"),
        ('"~text~"~text~', f'"say \\"hi\\"\\n\u20ac\\\\"{MESSAGE.text}'),
        ("~time~", DATE),
    ],
)
def test_what_is_quoted_is_escaped(template: str, filled: str) -> None:
    assert Template(template).fill(MESSAGE).decode() == filled


def test_a_page_is_not_left_by_a_text() -> None:
    filled = Template("<script>p('~text~');</script>").fill(Message(1, "c", "</script><script>'"))
    assert filled.count(b"</script>") == 1
    assert filled.count(b"'") == 2


def test_a_message_without_a_time_shows_none() -> None:
    assert Template("[~time~]").fill(Message(-1, "", " ")) == b"[]"


def test_the_id_of_a_message_is_its_offset_or_its_own() -> None:
    event = LogEvent(5, TIME, 3, TIME + 9, "e", {HEADER_TYPE: "t"}, "text")
    assert message_of("c", event) == Message(5, "c", "text", TIME, 3, "e", "t")
    assert message_of("c", event._replace(offset=0, headers={HEADER_ID: "-2"})).id == -2


# ---------------------------------------------------------------------- positions


def test_times_and_tags_are_read_as_they_are_written() -> None:
    assert http_time(TIME) == DATE
    assert unix_time(DATE) == TIME
    assert tag_of("W/12") == tag_of("12") == tag_of('W/"12"') == 12


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "\0", "Sun, 06 Nov 99999 08:49:37 GMT", "Sun, 06 Nov 1901 08:49:37 GMT"]
)
def test_what_is_no_time(text: str) -> None:
    assert unix_time(text) is None


@pytest.mark.parametrize("text", ["", "x", "-1", "1" * 19, "1.5"])
def test_what_is_no_tag(text: str) -> None:
    assert tag_of(text) is None


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ((None, "", "", ""), LIVE),
        ((3, DATE, "1", "e"), Last(3)),
        ((0, DATE, "1", "e"), LIVE),
        ((None, DATE, "", ""), AfterTime(TIME, LAST_TAG)),
        ((None, DATE, "W/4", ""), AfterTime(TIME, 4)),
        ((None, "", "4", ""), LIVE),
        ((None, "", "", "e"), AfterId("e", NO_TIME, LAST_TAG)),
        ((None, DATE, "", "e"), AfterId("e", TIME, LAST_TAG)),
        ((None, DATE, "4", "e"), AfterTime(TIME, 4)),
        ((None, "", "", f"{TIME}:4"), AfterTime(TIME, 4)),
        ((None, "", "", "x" * 1025), LIVE),
        ((None, "", "", "a\0b"), LIVE),
    ],
)
def test_where_a_subscriber_stands(told: tuple[int | None, str, str, str], found: object) -> None:
    assert position(*told) == found


def test_the_id_in_an_event_stream_is_a_position() -> None:
    event = LogEvent(1, TIME, 4, TIME + 60, "own", {}, "text")
    assert position(None, "", "", place(event)) == AfterTime(TIME, 4)
