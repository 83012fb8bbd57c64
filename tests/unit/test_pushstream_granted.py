"""Push stream, device side: what the main server is asked, and what its answers allow."""

from typing import Any

import pytest
from support.pushstream_shard import made

from farm.dialects import Authorise
from farm.transports.request import Grant, Refusal, Request
from router.common import messages as m
from router.common.operation import encoded
from router.dialects.pushstream.protocol import NOT_AUTHORIZED, Publish, refusal_text


def test_the_main_server_is_asked_about_a_message_first() -> None:
    dialect = made(websocket_allow_publish=True)
    assert dialect.asks_of_messages
    session: Any = dialect.opened(Request(b"GET", "/ws/a", "", {}, (1, 1), grant=Grant()))
    list(session.begun(0.0))
    (asked,) = session.received(b"hello", False, 0.0)
    assert asked == Authorise("hello", "hello", ("a",))
    for status, payload in ((m.OK, m.Verdict(403)), (m.OK, m.Verdict(503)), (m.FAILED, None)):
        assert session.replied("hello", status, payload, 0.0) == ()
    assert dialect.counters.commands_refused == 3
    (call,) = session.replied("hello", m.OK, m.Verdict(200), 0.0)
    assert call.request.arguments == encoded(Publish(["a"], "hello"))
    assert session.replied(call.context, m.OK, encoded(refusal_text(None)), 0.0) == ()
    assert session.replied(call.context, m.OK, encoded(refusal_text(NOT_AUTHORIZED)), 0.0) == ()
    assert dialect.counters.commands_refused == 4


def test_a_message_goes_to_those_channels_only_that_the_main_server_names() -> None:
    dialect = made(websocket_allow_publish=True)
    session: Any = dialect.opened(Request(b"GET", "/ws/a/b", "", {}, (1, 1), grant=Grant()))
    list(session.begun(0.0))
    for verdict in (m.Verdict(200, ["b.b2", "c"]), m.Verdict(200, redirect="/ws?channels=b/c")):
        (call,) = session.replied("hello", m.OK, verdict, 0.0)
        assert call.request.arguments == encoded(Publish(["b"], "hello"))
    for verdict in (m.Verdict(200, []), m.Verdict(200, ["c"]), m.Verdict(200, ["ALL"]), m.Verdict(200, redirect="/ws")):
        assert session.replied("hello", m.OK, verdict, 0.0) == ()
    assert dialect.counters.commands_refused == 4


def test_what_the_main_server_is_asked() -> None:
    dialect = made()
    assert dialect.wanted(Request(b"GET", "/ev/a.b2/b", "", {}, (1, 1))) == ["a", "b"]
    assert dialect.wanted(Request(b"GET", "/subscribe", "", {}, (1, 1))) == ()
    with pytest.raises(Refusal):
        dialect.wanted(Request(b"GET", "/ws/ALL", "", {}, (1, 1)))
    assert {"_", "tag", "time", "eventid"} < dialect.ignored_arguments
