"""The question to the main server as an HTTP request, and its answer as a verdict."""

import json

import msgspec
import pytest

from router.auth.http import Unusable, reason, request, verdict
from router.common import messages as m

COOKIE = (b"cookie", b"session=caf\xe9")
QUESTION = m.Authorise("talk", m.CONNECT, "GET", "/talk/a,b?x=1", [COOKIE], "192.0.2.1", ["a", "b,c d", "\N{SNOWMAN}"])
JSON = (b"Content-Type", b"application/json")


def test_a_get_has_everything_in_headers() -> None:
    asked = request(QUESTION, "get")
    headers = dict(asked.headers)
    assert (asked.method, asked.body) == ("GET", b"")
    assert headers.pop(b"user-agent").startswith(b"connection-farm/")
    assert headers.pop(b"accept")
    assert headers.pop(b"accept-encoding") == b"identity"
    assert headers == {
        b"cookie": b"session=caf\xe9",
        b"x-forwarded-for": b"192.0.2.1",
        b"x-original-method": b"GET",
        b"x-original-uri": b"/talk/a,b?x=1",
        b"x-dialect": b"talk",
        b"x-action": b"connect",
        b"x-channels": b"a,b%2Cc%20d,%E2%98%83",
    }


def test_a_header_of_the_client_and_one_of_ours_are_not_both_there() -> None:
    shown = [(b"user-agent", b"curl"), (b"x-forwarded-for", b"198.51.100.7"), COOKIE]
    headers = request(msgspec.structs.replace(QUESTION, headers=shown), "get").headers
    assert len(dict(headers)) == len(headers)
    assert {(b"user-agent", b"curl"), (b"x-forwarded-for", b"198.51.100.7, 192.0.2.1"), COOKIE} < set(headers)


def test_dialects_that_share_a_path_are_named_with_a_comma() -> None:
    headers = dict(request(msgspec.structs.replace(QUESTION, dialect="one,two"), "get").headers)
    assert headers[b"x-dialect"] == b"one,two"


def test_a_message_is_the_body_of_a_post() -> None:
    asked = request(msgspec.structs.replace(QUESTION, action=m.PUBLISH, message="hé\n", user="ann b"), "get")
    assert (asked.method, asked.body) == ("POST", "hé\n".encode())
    assert {(b"content-type", b"text/plain; charset=utf-8"), (b"x-user", b"ann%20b")} < set(asked.headers)


@pytest.mark.parametrize("action", [m.CONNECT, m.REFRESH, m.PUBLISH])
def test_a_post_has_the_same_in_a_json_object(action: str) -> None:
    granted = {"user": "ann", "data": '{"plan": 1}', "message": "hi"}
    asked = request(msgspec.structs.replace(QUESTION, action=action, **granted), "post")
    assert asked.method == "POST"
    assert {COOKIE, (b"content-type", b"application/json")} < set(asked.headers)
    assert json.loads(asked.body) == {
        "action": action,
        "dialect": "talk",
        "method": "GET",
        "uri": "/talk/a,b?x=1",
        "address": "192.0.2.1",
        "headers": {"cookie": "session=café"},
        "channels": ["a", "b,c d", "\N{SNOWMAN}"],
        "user": "ann",
        "data": {"plan": 1},
    } | ({"message": "hi"} if action == m.PUBLISH else {})


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (200, (), b"", m.Verdict(200)),
        (204, (), b"", m.Verdict(200)),
        (200, [(b"Content-Type", b"text/html")], b"<p>fine", m.Verdict(200)),
        (200, [JSON], b"{}", m.Verdict(200)),
        (200, [JSON], b" ", m.Verdict(200)),
        (200, [JSON], b'{"channels": []}', m.Verdict(200, [])),
        (200, [(b"content-type", b"text/html")], b'\n{"channels": ["a"]}', m.Verdict(200, ["a"])),
        (200, [(b"X-Accel-Redirect", b"/ws?channels=1")], b"", m.Verdict(200, None, "/ws?channels=1")),
        (
            201,
            [(b"content-type", b"application/problem+json; charset=utf-8")],
            b'{"channels":["a","b"],"user":7,"expires":0.2,"data":{"a": [1]},"more":1}',
            m.Verdict(200, ["a", "b"], "", "7", 1, '{"a": [1]}'),
        ),
        (200, [JSON], b'{"user":null,"expires":null,"data":null,"channels":null}', m.Verdict(200)),
        (
            401,
            [(b"Content-Type", b"text/html"), (b"WWW-Authenticate", b"Basic"), (b"Set-Cookie", b"a=b")],
            b"<p>who?",
            m.Verdict(401, content_type="text/html", body=b"<p>who?", headers=[(b"www-authenticate", b"Basic")]),
        ),
        (
            401,
            [(b"WWW-Authenticate", b"Basic"), (b"www-authenticate", b"Bearer")],
            b"",
            m.Verdict(401, headers=[(b"www-authenticate", b"Basic"), (b"www-authenticate", b"Bearer")]),
        ),
        (200, [(b"content-type", b"text/plain")], b'\xef\xbb\xbf{"channels": ["a"]}', m.Verdict(200, ["a"])),
        (429, [(b"retry-after", b"5")], b"", m.Verdict(429, headers=[(b"retry-after", b"5")])),
    ],
)
def test_an_answer(status: int, headers: list[tuple[bytes, bytes]], body: bytes, expected: m.Verdict) -> None:
    assert verdict(status, headers, body) == expected


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (302, b"", "redirects are not followed"),
        (304, b"", "2xx or 4xx"),
        (500, b"", "it answered 500"),
        (503, b"", "it answered 503"),
        (200, b"[]", "JSON"),
        (200, b'{"channels": "a"}', "JSON"),
        (200, b'{"channels": ["a"', "JSON"),
        (200, b'{"channels": [1]}', "JSON"),
        (200, b"\xff", "JSON"),
        (200, b'{"user": "\xff"}', "JSON"),
        (200, b'{"data":' + b"[" * 5000, "JSON"),
        (200, b'{"data": {"\xff": 1}}', "JSON"),
        (200, b'{"expires": 0}', "expires"),
        (200, b'{"expires": -5}', "expires"),
        (200, b'{"expires": 1e300}', "expires"),
        (200, json.dumps({"user": "u" * 257}).encode(), "user"),
        (200, json.dumps({"channels": ["c" * 1025]}).encode(), "channel"),
    ],
)
def test_an_answer_that_decides_nothing(status: int, body: bytes, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        verdict(status, [JSON], body)


def test_a_refusal_is_one_whatever_its_headers_are() -> None:
    wrong = [(b"Content-Type", b"text/\x01html"), (b"WWW-Authenticate", b"Basic\x7f"), (b"Retry-After", b"\x01")]
    assert verdict(403, [*wrong, (b"WWW-Authenticate", b"Bearer"), (b"Content-Encoding", b"gzip")], b"no") == m.Verdict(
        403, body=b"no", headers=[(b"www-authenticate", b"Bearer"), (b"content-encoding", b"gzip")]
    )


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ((b"Content-Encoding", b"gzip"), "compressed"),
        ((b"X-Accel-Redirect", b"http://elsewhere/ws?channels=a"), "no path"),
        ((b"X-Accel-Redirect", b""), "no path"),
        ((b"X-Accel-Redirect", b"/ws?channels=\x01"), "no path"),
        ((b"X-Accel-Redirect", b"/ws?channels=" + b"a" * m.MAX_URI), "no path"),
    ],
)
def test_a_header_that_cannot_be_used(header: tuple[bytes, bytes], why: str) -> None:
    with pytest.raises(Unusable, match=why):
        verdict(200, [header], b"no")


def test_an_error_that_says_nothing_is_told_by_its_cause() -> None:
    error = ConnectionError()
    error.__cause__ = RuntimeError()
    error.__cause__.__context__ = OSError("certificate verify failed")
    assert reason(error) == "ConnectionError: certificate verify failed"
    assert reason(ValueError("wrong")) == "ValueError: wrong"
    assert reason(RuntimeError()) == "RuntimeError: "
