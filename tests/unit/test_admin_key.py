"""Who may use requests that need the admin key, or have to come from this host."""

import hmac

import pytest
from support.http1 import options

from router.common.option_texts import key as checked_key
from router.http.admin_key import AdminKey
from router.http.http1 import HttpConnection
from router.http.message import Request

KEY = "s3cret+/=key"
SET = AdminKey(KEY, "talk.admin_key")
UNSET = AdminKey("", "talk.admin_key")


def asked(target: str = "/pub", *headers: str, address: str = "192.0.2.1", host: str = "localhost:8081") -> Request:
    """A request as the port gives it to a route."""
    http = HttpConnection(options())
    http.address = address
    head = "\r\n".join((f"GET {target} HTTP/1.1", f"Host: {host}", *headers, "", ""))
    ((request, _),) = http.receive(head.encode())
    return request


@pytest.mark.parametrize(
    "request_",
    [
        asked("/pub", f"Authorization: Bearer {KEY}"),
        asked("/pub?key=a", f"authorization: bearer  {KEY} "),
        asked(f"/pub?key=a&admin_key={KEY}&x=1"),
        asked("/pub?admin_key=s3cret%2b%2F%3Dkey"),
        asked(f"/pub?admin_key={KEY}", "Authorization: Basic YTpi"),
        asked("/pub", f"Authorization: Bearer {KEY}", "X-Forwarded-For: 198.51.100.1", "Forwarded: for=1"),
    ],
)
def test_who_shows_the_key_may_come_from_anywhere(request_: Request) -> None:
    assert SET.refusal(request_) is None


@pytest.mark.parametrize(
    "request_",
    [
        asked(),
        asked(address="127.0.0.1"),
        asked("/pub", "Authorization: Bearer", address="127.0.0.1"),
        asked("/pub", f"Authorization: {KEY}"),
        asked("/pub", f"Authorization: Basic {KEY}"),
        asked("/pub", f"X-Admin-Key: {KEY}"),
        asked(f"/pub?admin_key={KEY}x"),
        asked(f"/pub?Admin_Key={KEY}"),
        asked("/pub?admin_key="),
        asked("/pub?admin_key=wrong&admin_key=s3cret%2b%2F%3Dkey"),
        asked(f"/pub?admin_key={KEY}", "Authorization: Bearer wrong"),
        asked("/pub", f"Authorization: Bearer {KEY[:-1]}"),
        asked("/pub", "Authorization: Bearer \u00e9"),
    ],
)
def test_others_are_told_what_to_send(request_: Request) -> None:
    refused = SET.refusal(request_)
    assert refused is not None
    assert refused.status == 403
    assert refused.body == (
        b"the admin key is missing or wrong: send the value of talk.admin_key as `Authorization: Bearer KEY` or "
        b"`?admin_key=KEY`\n"
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_without_a_key_programs_on_this_host_may_come(address: str) -> None:
    assert UNSET.refusal(asked(address=address)) is None


@pytest.mark.parametrize(
    "request_",
    [
        asked(),
        asked(address="::ffff:7f00:1"),
        asked(address="1270.0.0.1"),
        asked(address=""),
        asked("/pub", "Forwarded: for=127.0.0.1", address="127.0.0.1"),
        asked("/pub", "X-Forwarded-For: 127.0.0.1", address="::1"),
        asked("/pub", "X-Forwarded-For:", address="::1"),
        asked("/pub?admin_key=", "Authorization: Bearer "),
    ],
)
def test_without_a_key_others_may_not(request_: Request) -> None:
    refused = UNSET.refusal(request_)
    assert refused is not None
    assert refused.status == 403
    assert b"set one" in refused.body
    assert b"talk.admin_key" in refused.body


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("localhost:8081", ("Origin: http://localhost:8081", "Sec-Fetch-Site: same-origin")),
        ("localhost:8081", ("Referer: http://localhost:8081/client?key=a",)),
        ("localhost", ("Origin: https://LOCALHOST:443",)),
        ("localhost:8081", ("Sec-Fetch-Site: none", "User-Agent: Mozilla/5.0")),  # typed by its user
        *(
            (host, ())
            for host in ("127.0.0.1:8081", "127.1", "[::1]:8081", "[::ffff:127.0.0.1]", "a.localhost", "farm")
        ),
    ],
)
def test_without_a_key_pages_and_names_of_this_host_may_come(host: str, headers: tuple[str, ...]) -> None:
    assert UNSET.refusal(asked("/pub", *headers, address="127.0.0.1", host=host)) is None


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("localhost:8081", ("Origin: http://example.org",)),
        ("localhost:8081", ("Origin: null",)),
        ("localhost:8081", ("Origin: http://localhost:3000",)),
        ("localhost:8081", ("Origin: http://127.0.0.1:8081",)),
        ("localhost:8081", ("Referer: https://example.org/page",)),
        ("localhost:8081", ("Sec-Fetch-Site: cross-site",)),
        ("localhost:8081", ("Sec-Fetch-Site: same-site", "Origin: http://localhost:8081")),
        # Names of others that lead here: what a browser says of itself does not tell.
        ("farm.example.org:8081", ("Origin: http://farm.example.org:8081", "Sec-Fetch-Site: same-origin")),
        *((host, ()) for host in ("example.org:8081", "localhost.example.org", "0.0.0.0:8081", "[::]:8081")),
    ],
)
def test_without_a_key_pages_of_other_sites_may_not(host: str, headers: tuple[str, ...]) -> None:
    assert UNSET.refusal(asked("/pub", *headers, address="127.0.0.1", host=host)) is not None
    with_key = asked(f"/pub?admin_key={KEY}", *headers, address="127.0.0.1", host=host)
    assert SET.refusal(with_key) is None


def test_a_request_of_no_connection_is_not_from_this_host() -> None:
    assert UNSET.refusal(Request(b"GET", b"/pub", b"", {}, b"")) is not None


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert SET.refusal(asked(f"/pub?admin_key={KEY}")) is not None
    assert compared == [(KEY.encode(), KEY.encode())]


@pytest.mark.parametrize("wrong", ["a b", "a\n", "\u00e9", "\x7f"])
def test_a_key_is_visible_ascii(wrong: str) -> None:
    assert checked_key(KEY) == KEY
    assert checked_key("") == ""
    with pytest.raises(ValueError, match=r"^.+$|"):
        checked_key(wrong)
