"""What a message of the queue is, and what becomes of one that is none."""

from dataclasses import fields

import pytest
from support.common import settings_with

from router.common.errors import MendableError
from router.common.options import spec_of
from router.dialects.pushstream import SPEC
from router.dialects.pushstream.nats.notification import NotificationError, notification
from router.dialects.pushstream.nats.options import NatsOptions, max_in_work, servers, stream_problems
from router.dialects.pushstream.protocol import PushStreamOptions

OPTIONS = PushStreamOptions()


@pytest.mark.parametrize(
    ("data", "names", "text"),
    [
        (b'"{\\"channel\\":7,\\"message\\":\\"hello\\"}"', ["7"], "hello"),  # as gogin's
        (b'{"channel":7,"message":"hello"}', ["7"], "hello"),
        (b'{"message":"","channel":"a","more":[1]}', ["a"], ""),
        ('{"channel":"a/b/a","message":"é\\u0000"}'.encode(), ["a", "b"], "é\0"),
    ],
)
def test_a_notification(data: bytes, names: list[str], text: str) -> None:
    assert notification(data, OPTIONS) == (names, text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'"text"',
        b'"\\"text\\""',
        b'{"channel":7}',
        b'{"channel":null,"message":"m"}',
        b'{"channel":7,"message":7}',
        b'{"channel":"","message":"m"}',
        b'{"channel":"ALL","message":"m"}',
        b'{"channel":"a*","message":"m"}',
        b'{"channel":"%s","message":"m"}' % (b"x" * 201),
        b'{"channel":true,"message":"m"}',
        b'{"channel":"\\ud800","message":"m"}',
        b"[" * 100_000,
    ],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(NotificationError):
        notification(data, OPTIONS)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("url", "http://example.org"),
        ("url", "nats://"),
        ("url", "nats://a:99999"),
        ("url", "nats://a,b"),
        ("subject", ""),
        ("subject", "a b"),
        ("subject", "a..b"),
        ("stream", "a.b"),
        ("durable", "*"),
    ],
)
def test_options_that_mean_nothing_are_refused(option: str, value: str) -> None:
    with pytest.raises(ValueError):
        checked(option, value)


def test_servers_of_a_cluster() -> None:
    urls = "nats://u:p@a:4222, tls://[::1]"
    assert checked("url", urls) == urls
    assert servers(urls) == ["nats://u:p@a:4222", "tls://[::1]"]


def test_a_stream_needs_a_consumer() -> None:
    assert stream_problems(NatsOptions(stream="s")) == stream_problems(NatsOptions(durable="")) == []
    with pytest.raises(MendableError, match=r"nats\.durable"):
        SPEC.check(settings_with((NatsOptions, {"stream": "s", "durable": ""})))


def checked(option: str, value: str) -> str:
    check_value = spec_of({field.name: field for field in fields(NatsOptions)}[option]).check
    assert check_value is not None
    return check_value(value)


@pytest.mark.parametrize(("waiting", "longest", "in_work"), [(10, 65_536, 10), (10_000, 65_536, 256), (10, 2**25, 1)])
def test_of_a_stream_no_more_is_taken_than_has_room(waiting: int, longest: int, in_work: int) -> None:
    assert max_in_work(NatsOptions(max_waiting=waiting, max_waiting_bytes=2**24), longest) == in_work
