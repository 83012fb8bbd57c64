"""Push stream: what a subscriber's request asks for."""

from typing import Any

import pytest
from support.pushstream_shard import DATE, TIME

from farm.dialects.pushstream.requests import arguments, asked, callback_of, mode_of, redirected
from farm.transports.request import Grant, Request
from router.common.position import LAST_TAG, LIVE, AfterId, AfterTime, Last
from router.dialects.pushstream.protocol import BAD_CALLBACK, NO_CHANNEL, NOT_GRANTED, PushStreamOptions, Refused

OPTIONS = PushStreamOptions()


def request(target: str, **headers: str) -> Request:
    path, _, query = target.partition("?")
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(b"GET", path, query, fields, (1, 1))


@pytest.mark.parametrize(
    ("target", "mode"),
    [
        ("/ws/a", "websocket"),
        ("/ws", "websocket"),
        ("/subscribe/a/b", "websocket"),
        ("/ev/a", "eventsource"),
        ("/lp/a", "long-polling"),
        ("/sub/a", "streaming"),
        ("/sub?channels=a", "streaming"),
    ],
)
def test_the_path_says_how_messages_come(target: str, mode: str) -> None:
    assert mode_of(request(target)) == mode
    for name in ("polling", "long-polling"):
        other = mode_of(request(target, x_nginx_pushstream_mode=name))
        assert other == (mode if mode == "websocket" else name)
    assert mode_of(request(target, x_nginx_pushstream_mode="streaming")) == mode


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("/sub/a", ["a"]),
        ("/sub/a/b.b2", ["a", "b"]),
        ("/sub/a%2Fb", ["a", "b"]),
        ("/sub/%C3%A9", ["é"]),
        ("/ws?channels=a/b.b3&x=1", ["a", "b"]),
        ("/ws?channels=a%2Fb", ["a", "b"]),
        ("/sub?_=1&channels=a/b", ["a", "b"]),
        ("/ws/a?channels=b", ["a"]),
    ],
)
def test_channels_are_in_the_path_or_in_the_query(target: str, names: list[str]) -> None:
    assert [channel.name for channel in asked(request(target), OPTIONS).channels] == names


@pytest.mark.parametrize("target", ["/ws", "/sub/", "/sub//", "/ev/?channels="])
def test_no_channel(target: str) -> None:
    with pytest.raises(Refused) as refused:
        asked(request(target), OPTIONS)
    assert refused.value.answer is NO_CHANNEL


@pytest.mark.parametrize(
    ("target", "headers", "positions"),
    [
        ("/sub/a", {}, [LIVE]),
        ("/sub/a.b2/b", {}, [Last(2), LIVE]),
        ("/sub/a", {"if_modified_since": DATE}, [AfterTime(TIME, LAST_TAG)]),
        ("/sub/a", {"if_modified_since": DATE, "if_none_match": "W/5"}, [AfterTime(TIME, 5)]),
        ("/sub/a", {"if_modified_since": DATE, "if_none_match": '"5"'}, [AfterTime(TIME, 5)]),
        (f"/sub/a?time={DATE.replace(' ', '%20')}&tag=5&eventid=", {}, [AfterTime(TIME, 5)]),
        ("/sub/a?tag=&time=&eventid=", {}, [LIVE]),
        (
            f"/sub/a?time={DATE.replace(' ', '%20')}&tag=6",
            {"if_modified_since": "Thu, 01 Jan 1970 00:00:00 GMT", "if_none_match": "W/5"},
            [AfterTime(TIME, 6)],
        ),
        ("/ev/a", {"last_event_id": "mine"}, [AfterId("mine")]),
        ("/ev/a?eventid=other", {"last_event_id": "mine"}, [AfterId("other")]),
        ("/ev/a.b2/b", {"last_event_id": "mine"}, [Last(2), AfterId("mine")]),
        ("/sub/a", {"if_modified_since": "yesterday"}, [LIVE]),
    ],
)
def test_positions(target: str, headers: dict[str, str], positions: list[Any]) -> None:
    assert asked(request(target, **headers), OPTIONS).positions == positions


def test_a_browser_that_comes_again_by_itself_is_not_sent_the_backtrack_again() -> None:
    place = AfterTime(TIME, 5)
    found = asked(request("/ev/a.b10/b", last_event_id=f"{TIME}:5"), OPTIONS)
    assert found.positions == [place, place]


def test_arguments_that_are_too_many_are_none() -> None:
    assert arguments("&".join(f"a{number}=1" for number in range(200))) == {}
    assert arguments("a=1&a=2&b=") == {"a": "1"}


@pytest.mark.parametrize("name", ["took", "page.took", "$", "_a1", "PushStreamManager[0].wrapper"])
def test_a_callback(name: str) -> None:
    assert callback_of(request(f"/lp/a?callback={name}")) == name


@pytest.mark.parametrize("name", ["1a", "a-b", "a(", "alert(1)//", "a.", "a..b", "a[b]", "%3Cscript%3E", "a" * 200])
def test_what_is_no_function_is_no_callback(name: str) -> None:
    with pytest.raises(Refused) as refused:
        callback_of(request(f"/lp/a?callback={name}"))
    assert refused.value.answer is BAD_CALLBACK


@pytest.mark.parametrize(
    ("target", "granted", "names"),
    [
        ("/subscribe", ["1"], ["1"]),
        ("/subscribe/x", ["1"], ["1"]),
        ("/ev/a/b", ["b", "c"], ["b"]),
        ("/ev/a.b2/b", ["a", "b"], ["a", "b"]),
        ("/ev?channels=a/b", ["b"], ["b"]),
    ],
)
def test_a_client_has_what_the_main_server_grants(target: str, granted: list[str], names: list[str]) -> None:
    one = request(target)
    one.grant = Grant(tuple(granted))
    assert [channel.name for channel in asked(one, OPTIONS).channels] == names


def test_a_grant_without_channels_is_for_what_was_asked_and_an_empty_one_for_none() -> None:
    one = request("/ev/a.b2")
    one.grant = Grant()
    assert asked(one, OPTIONS).channels == [("a", 2)]
    one = request("/ev")
    one.grant = Grant(("a.b3",))
    assert asked(one, OPTIONS).positions == [Last(3)]
    one.grant = Grant(())
    with pytest.raises(Refused) as refused:
        asked(one, OPTIONS)
    assert refused.value.answer is NOT_GRANTED


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("/ws?_=&tag=&time=&eventid=&channels=1", ["1"]),
        ("/ws?channels=a.b3/b", ["a.b3", "b"]),
        ("/sub/a/b?x=1", ["a", "b"]),
        ("/internal/ws?channels=a/b", ["a", "b"]),
        ("/sub", []),
    ],
)
def test_a_target_as_nginx_is_told(target: str, names: list[str]) -> None:
    assert redirected(target) == names
