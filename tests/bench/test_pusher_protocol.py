"""How the bench speaks Pusher: its devices and its app servers."""

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from support.misbehaving_pusher import event, signed

from bench.load import frames
from bench.load.frames import PeerError
from bench.load.http_bytes import payload_of
from bench.load.protocols import protocol_of
from bench.load.protocols.base import DONE, PONG, Received, Scenario
from bench.load.protocols.pusher import Post as Pusher
from bench.load.protocols.pusher import application_in
from bench.load.samples import DATA_RIGHT, DATA_WRONG

SCENARIO = Scenario("h:1", payload=60, shared=4)
CHANNEL = "fanout-1"


def test_an_event_of_an_app_server_is_signed() -> None:
    request = Pusher("h:1", "key:secret").request(b"/apps/3/events?news-4", 9, 40)
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert f"Content-Length: {len(body)}" in headers and "Host: h:1" in headers
    assert json.loads(body) == {"name": "bench", "channels": ["news-4"], "data": payload_of(9, 40).decode()}
    method, target, _ = line.split()
    assert method == "POST" and signed(method, target, body, "secret")
    assert dict(parse_qsl(urlsplit(target).query))["auth_key"] == "key"


def test_a_device_of_pusher() -> None:
    protocol = protocol_of("pusher", SCENARIO, {"key": "k"})
    assert protocol.request(5).startswith(b"GET /app/k?protocol=7&")
    step = protocol.opened(5, b"")
    assert step.step != DONE and not step.send
    assert protocol.answered(5, step.step, b'{"event":"other"}', b"") is None
    pinged = protocol.answered(5, step.step, b'{"event":"pusher:ping","data":{}}', b"")
    assert pinged is not None and pinged.step == step.step and pinged.send
    hello = b'{"event":"pusher:connection_established","data":"{}"}'
    subscribe = protocol.answered(5, step.step, hello, b"")
    assert subscribe is not None and subscribe.step != DONE
    wanted = b'{"event":"pusher:subscribe","data":{"auth":"","channel":"fanout-1"}}'
    assert subscribe.send == frames.client_frame(wanted)
    done = b'{"event":"pusher_internal:subscription_succeeded","channel":"fanout-%d","data":"{}"}'
    assert protocol.answered(5, subscribe.step, done % 2, b"") is None
    last = protocol.answered(5, subscribe.step, done % 1, b"")
    assert last is not None and last.step == DONE and not last.send
    assert protocol.received(5, event()) == Received(((1, 7, DATA_RIGHT),))
    assert protocol.received(5, event(size=59)) == Received(((1, 7, DATA_WRONG),))
    assert protocol.received(5, event(user_id="3")) == Received(((1, 7, DATA_WRONG),))
    assert protocol.received(5, event("fanout-2")) == Received(strays=1)
    assert protocol.received(5, event(name="other")) is None
    assert protocol.received(5, b'{"event":"pusher:pong"}') is PONG
    pong = protocol.received(5, b'{"event":"pusher:ping"}')
    assert pong is not None and pong.reply and not pong.updates


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"{{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"event":"bench","channel":"fanout-1"}', "bad message"),
        (b'{"event":"bench","channel":"fanout-1","data":7}', "bad message"),
        (b'{"event":"pusher:error","data":{"message":"no","code":4301}}', "pusher:error 4301"),
        (b'{"event":"pusher:error","data":"{\\"code\\":4009}"}', "pusher:error 4009"),
        (b'{"event":"pusher:error","data":"unauthorized"}', "pusher:error without a code"),
        (b'{"event":"pusher:error","data":"3"}', "pusher:error without a code"),
        (b'{"event":"pusher:subscription_error","data":{"status":401}}', "pusher:subscription_error 401"),
    ],
)
def test_what_a_device_of_pusher_refuses(payload: bytes, text: str) -> None:
    with pytest.raises(PeerError, match=text):
        protocol_of("pusher", SCENARIO, {}).received(5, payload)


def test_applications_of_a_farm_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "apps.json"
    file.write_text('{"applications":[{"name":"shop","key":"k","secret":"s"},{"id":2}]}')
    found = application_in(str(file))
    assert (found.id, found.key, found.secret) == ("shop", "k", "s") and "s'" not in repr(found)
    for text in ("{", "[]", '{"applications":[]}', '{"applications":[{"name":"n"}]}', '{"applications":[3]}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="no application"):
            application_in(str(file))
    with pytest.raises(ValueError, match="No such file"):
        application_in(str(tmp_path / "none"))


def test_a_device_of_pusher_has_one_channel() -> None:
    with pytest.raises(ValueError, match="one channel"):
        protocol_of("pusher", Scenario("h", channels=2), {})
