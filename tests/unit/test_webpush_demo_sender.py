"""What `farm demo` posts, where to, and the page that it serves."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest
from py_vapid import Vapid02
from support.webpush_demo import Loads, Receiver, base64url, decoded

from farm.webpush_demo import page
from farm.webpush_demo.sender import MAX_PLAIN_BYTES, Base, Keys, Order, Refused, Sender, Subscription, hint

NOW = 1_700_000_000.0
FARM = Base.parse("http://127.0.0.1:8081")


def order(endpoint: str = "http://127.0.0.1:8081/wpush/v2/abc", receiver: Receiver | None = None, **more: Any) -> Order:
    keys = (receiver or Receiver()).keys
    return Order(Subscription(endpoint, Keys(**keys)), **{"text": "hello", **more})


def sender(base: Base = FARM) -> Sender:
    return Sender(base, lambda: NOW)


@pytest.mark.parametrize(
    ("base", "endpoint", "path"),
    [
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081/wpush/v1/a-_9", "/wpush/v1/a-_9"),
        ("http://127.0.0.1:8081/", "http://127.0.0.1:8081/wpush/v2/abc", "/wpush/v2/abc"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081/wpush/abc", "/wpush/abc"),
        ("https://push.example.org", "https://push.example.org/wpush/v2/abc", "/wpush/v2/abc"),
        ("https://push.example.org:443", "https://PUSH.example.org/wpush/v2/abc", "/wpush/v2/abc"),
        ("https://example.org/push", "https://example.org/push/wpush/v2/abc", "/push/wpush/v2/abc"),
        ("http://[::1]:8081", "http://[::1]:8081/wpush/v2/abc", "/wpush/v2/abc"),
    ],
)
def test_endpoints_of_the_farm(base: str, endpoint: str, path: str) -> None:
    assert Base.parse(base).path_of(endpoint) == path


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://updates.push.services.mozilla.com/wpush/v2/abc",
        "http://127.0.0.1:8082/wpush/v2/abc",
        "https://127.0.0.1:8081/wpush/v2/abc",
        "http://127.0.0.1/wpush/v2/abc",
        "http://localhost:8081/wpush/v2/abc",
        "http://127.0.0.1:8081@elsewhere/wpush/v2/abc",
        "http://elsewhere@127.0.0.1:8081/wpush/v2/abc",
        "http://127.0.0.1:8081.elsewhere/wpush/v2/abc",
        "http://127.0.0.1:8081/update/abc",
        "http://127.0.0.1:8081/wpush/v3/abc",
        "http://127.0.0.1:8081/wpush/v2/../../status",
        "http://127.0.0.1:8081/wpush/v2/abc/",
        "http://127.0.0.1:8081/wpush/v2/abc?x",
        "http://127.0.0.1:8081/wpush/v2/abc#x",
        "http://127.0.0.1:8081/wpush/v2/",
        "http://127.0.0.1:8081/wpush/v2/a b",
        "http://127.0.0.1:8081/wpush/v2/ä",
        "http://127.0.0.1:8081",
        "http://127.0.0.1:99999/wpush/v2/abc",
        "http://[::1/wpush/v2/abc",
        "file:///wpush/v2/abc",
        "",
    ],
)
def test_it_posts_nowhere_else(endpoint: str) -> None:
    with pytest.raises(Refused):
        sender().push(order(endpoint))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8081/wpush/v2/abc", "http://127.0.0.1:8081/push2/wpush/v2/abc"])
def test_a_farm_below_a_path_is_not_its_whole_host(endpoint: str) -> None:
    with pytest.raises(Refused):
        Base.parse("http://127.0.0.1:8081/push").path_of(endpoint)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8081",
        "ftp://host",
        "http://",
        "http://host:x",
        "http://u@host",
        "http://h?q",
        "http://a b",
        "http://a/b c",
    ],
)
def test_a_base_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Base.parse(url)


def test_the_push_is_encrypted_for_its_receiver() -> None:
    receiver = Receiver()
    push = sender().push(order(receiver=receiver, text="Grüße, 世界", topic="news", ttl=0, urgency="low"))
    assert receiver.decrypted(push.body) == {"text": "Grüße, 世界", "sent": NOW * 1000}
    expected = {"Content-Encoding": "aes128gcm", "TTL": "0", "Topic": "news", "Urgency": "low"}
    assert push.headers.items() >= expected.items()


def test_the_push_is_signed_with_the_key_that_the_page_subscribes_with() -> None:
    demo = sender()
    push = demo.push(order())
    assert f"k={demo.public_key}" in push.headers["Authorization"]
    assert len(decoded(demo.public_key)) == 65
    assert Vapid02.verify(push.headers["Authorization"])
    token = re.match(r"vapid t=([\w.-]+),\s*k=", push.headers["Authorization"])
    assert token is not None
    claims = json.loads(decoded(token[1].split(".")[1]))
    assert claims["aud"] == FARM.url and NOW < claims["exp"] < NOW + 86400 and claims["sub"].startswith("mailto:")


def test_no_topic_header_without_a_topic() -> None:
    assert "Topic" not in sender().push(order()).headers


@pytest.mark.parametrize("topic", ["a b", "a\r\nX: y", "ä", "\0"])
def test_a_topic_that_is_no_header(topic: str) -> None:
    with pytest.raises(Refused, match="topic"):
        sender().push(order(topic=topic))


def test_the_longest_text_fits_one_record() -> None:
    frame = len(json.dumps({"text": "", "sent": NOW * 1000}, separators=(",", ":")))
    longest = "x" * (MAX_PLAIN_BYTES - frame)
    assert len(sender().push(order(text=longest)).body) == 4096
    with pytest.raises(Refused, match="1 bytes too long"):
        sender().push(order(text=longest + "x"))


@pytest.mark.parametrize(
    "keys",
    [
        {"p256dh": "", "auth": ""},
        {"p256dh": "AAAA", "auth": "AAAA"},
        {"p256dh": base64url(b"\4" + bytes(64)), "auth": base64url(bytes(16))},
        {"p256dh": "not base64!", "auth": base64url(bytes(16))},
        {"p256dh": "é", "auth": "é"},
    ],
)
def test_keys_that_are_none(keys: dict[str, str]) -> None:
    with pytest.raises(Refused, match="Subscribe again"):
        sender().push(Order(Subscription("http://127.0.0.1:8081/wpush/v2/abc", Keys(**keys)), "hello"))


def test_every_answer_but_a_good_one_has_a_hint() -> None:
    assert hint(201) == hint(202) == ""
    assert all(hint(status) for status in (301, 400, 401, 404, 410, 413, 418, 500, 502, 503))
    assert "ubscribe again" in hint(410) and "ubscribe again" in hint(404) and "ubscribe again" in hint(401)


def build(device_url: str = "ws://127.0.0.1:8080/") -> str:
    return page.build("http://localhost:8083/", "http://127.0.0.1:8081", device_url, "KEY")


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert set(Loads(build()).sources) - {"data:,"} <= set(page.FILES)
    for name in page.FILES:
        assert not re.search(rb"""["'(]\s*(https?:)?//""", page.file(name)), name


def test_the_page_shows_the_prefs_in_their_order() -> None:
    texts = Loads(build()).texts
    assert (texts["pref-1"], texts["value-1"]) == ("dom.push.testing.allowInsecureServerURL", "true")
    assert (texts["pref-2"], texts["value-2"]) == ("dom.push.serverURL", "ws://127.0.0.1:8080/")


def test_wss_needs_one_pref_only() -> None:
    texts = Loads(build("wss://push.example.org/")).texts
    assert (texts["pref-1"], texts["value-1"]) == ("dom.push.serverURL", "wss://push.example.org/")
    assert "pref-2" not in texts


def test_the_line_for_a_fresh_profile_writes_its_prefs(tmp_path: Any) -> None:
    device_url = "ws://127.0.0.1:8080/a'b\"c$d"
    line = Loads(build(device_url)).texts["profile-line"]
    stand_in = tmp_path / "firefox"
    stand_in.write_text('#!/bin/sh\ncat "$3/user.js"; printf "%s" "$4"; rm -r "$3"\n')
    stand_in.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(["sh", "-c", line], env=path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [pref.line for pref in page.prefs(device_url)] + ["http://localhost:8083/"]


def test_addresses_are_escaped() -> None:
    device_url = 'ws://host/"><script>alert(1)</script>'
    document = build(device_url)
    assert "<script>alert" not in document
    assert Loads(document).body["data-device"] == device_url
