"""WebPush on a whole farm: devices that speak as Firefox does, senders with VAPID, and everything killed under traffic.

The bodies are no real encryption but in the test with pywebpush: the farm does not look into them.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import trio
import trio_websocket
import websocket
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, Json, new_channel, running_farm, until
from support.simplepush import Device, put

T = TypeVar("T")
ID = "remote-settings/monitor_changes"
DEVICES = 24
CHANNELS = 2
PUSHERS = 3
CRASH = {
    "link.lease": 2,
    "farm.restart_max": 0.1,  # what is killed often is started again as fast as what is killed once
    "webpush.hello_timeout": 0,  # a hello without an answer must not be helped by its deadline
    "simplepush.hello_timeout": 0,
    "store.inbox_limit": 100_000,  # nothing may be evicted here
    "store.inbox_bytes": 33_554_432,
}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default; but SimplePush is more patient than WebPush by far."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data", {"webpush.hello_timeout": 0.5}) as farm:
        yield farm


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker with low limits, and without SimplePush."""
    settings = {
        "dialects.simplepush": False,
        "webpush.batch": 2,
        "webpush.max_unacked": 3,
        "webpush.max_channels": 2,
        "webpush.max_broadcasts": 2,
        "link.max_broadcasts": 3,
    }
    with running_farm(tmp_path_factory.mktemp("narrow") / "data", settings, workers=1) as farm:
        yield farm


# ---------------------------------------------------------------------- both sides


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Firefox:
    """A device on websocket-client, which blocks. What comes between a command and its reply is kept for later."""

    def __init__(self, farm: Farm, uaid: str | None = None, broadcasts: Json | None = None) -> None:
        self.socket = websocket.create_connection(
            farm.device_url, subprotocols=["push-notification"], timeout=PATIENCE_S
        )
        self._kept: deque[Json] = deque()
        hello: Json = {"messageType": "hello", "broadcasts": broadcasts or {}, "use_webpush": True}
        self.send(hello if uaid is None else hello | {"uaid": uaid})
        self.greeting = self.receive()
        assert self.greeting["messageType"] == "hello", self.greeting
        assert self.greeting["use_webpush"] is True
        assert self.greeting["status"] == 200
        self.uaid: str = self.greeting["uaid"]

    def __enter__(self) -> Firefox:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()  # close() leaves the socket open if the server has closed first

    def send(self, command: Json) -> None:
        self.socket.send(json.dumps(command))

    def receive(self) -> Json:
        message: Json = json.loads(self.socket.recv())
        return message

    def ask(self, **command: Any) -> Json:
        """One command and its reply."""
        self.send(command)
        while (message := self.receive()).get("messageType") in ("notification", "broadcast"):
            self._kept.append(message)
        return message

    def register(self, key: str | None = None, channel: str = "") -> tuple[str, str]:
        """Returns: the channel and its endpoint."""
        channel = channel or new_channel()
        fields = {} if key is None else {"key": key}
        reply = self.ask(messageType="register", channelID=channel, **fields)
        assert (reply["messageType"], reply["channelID"], reply["status"]) == ("register", channel, 200), reply
        return channel, reply["pushEndpoint"]

    def unregister(self, channel: str) -> None:
        reply = self.ask(messageType="unregister", channelID=channel, code=200)
        assert reply == {"messageType": "unregister", "channelID": channel, "status": 200}

    def message(self) -> Json:
        """The next message that is no reply."""
        return self._kept.popleft() if self._kept else self.receive()

    def notes(self, count: int) -> list[Json]:
        """So many notifications."""
        found = [self.message() for _ in range(count)]
        assert all(note["messageType"] == "notification" for note in found), found
        assert all(list(note)[:3] == ["messageType", "channelID", "version"] for note in found), found
        return found

    def bodies(self, count: int) -> list[str]:
        """The bodies of so many notifications, which are acknowledged."""
        found = self.notes(count)
        self.ack(*found)
        return list(map(body_of, found))

    def ack(self, *notes: Json) -> None:
        for note in notes:
            update = {"channelID": note["channelID"], "version": note["version"], "code": 100}
            self.send({"messageType": "ack", "updates": [update]})

    def nothing(self) -> None:
        """Everything said so far has been dealt with, in the store too, and nothing has come of it."""
        self.unregister(new_channel())
        assert not self._kept

    def close_code(self) -> int | None:
        """Read on until the server's close frame. Returns: its code."""
        while True:
            opcode, payload = self.socket.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else None


def body_of(note: Json) -> str:
    """The text that the sender sent."""
    assert note["headers"] == {"encoding": "aes128gcm"}
    return decode(note["data"]).decode()


def request(method: str, url: str, body: bytes = b"", **headers: str) -> HttpAnswer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(method, parts.path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return HttpAnswer(answer.status, found, answer.read())


def post(endpoint: str, text: str = "", **headers: str) -> HttpAnswer:
    """Push a text."""
    headers = {"TTL": "3600"} | headers
    if text:
        headers = {"Content_Encoding": "aes128gcm"} | headers
    return request("POST", endpoint, text.encode(), **headers)


def pushed(endpoint: str, text: str = "", **headers: str) -> str:
    """Push a text that is taken. Returns: where the message is."""
    answer = post(endpoint, text, **headers)
    assert answer.status == 201, answer
    assert answer.body == b""
    return answer.headers["location"]


def error(answer: HttpAnswer) -> tuple[int, int]:
    """Status and errno of a refusal."""
    body = answer.json()
    assert body["code"] == answer.status
    return body["code"], body["errno"]


class Sender:
    """An application server with a VAPID key."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        raw = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.key = encode(raw)

    def jwt(self, endpoint: str, **claims: Any) -> str:
        parts = urlsplit(endpoint)
        body = {"aud": f"{parts.scheme}://{parts.netloc}", "exp": int(time.time()) + 600, "sub": "mailto:a@example.org"}
        signed = ".".join(encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256"}, body | claims))
        r, s = decode_dss_signature(self._private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def vapid(self, endpoint: str, **claims: Any) -> Json:
        """The headers of RFC 8292."""
        return {"Authorization": f"vapid t={self.jwt(endpoint, **claims)}, k={self.key}"}

    def draft(self, endpoint: str) -> Json:
        """The headers of the draft before it."""
        return {"Authorization": f"WebPush {self.jwt(endpoint)}", "Crypto_Key": f"p256ecdsa={self.key}"}


def away(farm: Farm, device: Firefox) -> None:
    """The device goes."""
    held = farm.status()["router"]["addresses"]
    device.__exit__()
    until(lambda: farm.status()["router"]["addresses"] < held, "the farm knows that the device is away")


# ---------------------------------------------------------------------- the way through


def test_a_push_reaches_a_device_without_key(farm: Farm) -> None:
    with Firefox(farm) as device:
        assert device.socket.getsubprotocol() == "push-notification"
        assert len(device.uaid) == 32
        assert device.greeting["broadcasts"] == {}
        channel, endpoint = device.register()
        assert endpoint.startswith(farm.url("/wpush/v1/"))
        answer = post(endpoint, "hello", TTL="99")
        assert (answer.status, answer.body, answer.headers["ttl"]) == (201, b"", "99")
        assert answer.headers["location"].startswith(farm.url("/m/"))
        (note,) = device.notes(1)
        assert (note["channelID"], body_of(note)) == (channel, "hello")
        device.ack(note)
        device.nothing()


def test_a_push_with_a_key_needs_its_signature(farm: Farm) -> None:
    sender, other = Sender(), Sender()
    with Firefox(farm) as device:
        _, endpoint = device.register(sender.key + "=")  # with padding, as Firefox writes it
        assert endpoint.startswith(farm.url("/wpush/v2/"))
        assert error(post(endpoint, "a")) == (401, 109)
        assert error(post(endpoint, "a", **other.vapid(endpoint))) == (401, 109)
        assert error(post(endpoint, "a", **sender.vapid(endpoint, aud="https://elsewhere.example"))) == (401, 109)
        assert error(post(endpoint, "a", **sender.vapid(endpoint, exp=int(time.time()) - 60))) == (401, 109)
        pushed(endpoint, "new", **sender.vapid(endpoint))
        pushed(endpoint, "old", **sender.draft(endpoint))
        assert device.bodies(2) == ["new", "old"]
        device.nothing()


def test_a_bad_key_is_told(farm: Farm) -> None:
    with Firefox(farm) as device:
        reply = device.ask(messageType="register", channelID=new_channel(), key="nonsense")
        assert reply["status"] == 400
        device.register()


def test_aesgcm_and_a_push_without_body(farm: Farm) -> None:
    with Firefox(farm) as device:
        channel, endpoint = device.register()
        headers = {"Encryption": 'salt="c2FsdA=="', "Crypto_Key": "dh=ZGg", "Content_Encoding": "aesgcm"}
        pushed(endpoint, "draft", **headers)
        (note,) = device.notes(1)
        assert decode(note["data"]) == b"draft"
        assert note["headers"] == {"encoding": "aesgcm", "encryption": "salt=c2FsdA", "crypto_key": "dh=ZGg"}
        pushed(endpoint)
        (empty,) = device.notes(1)
        assert set(empty) == {"messageType", "channelID", "version"}
        assert empty["channelID"] == channel
        device.ack(note, empty)
        device.nothing()


def test_the_longest_message(farm: Farm) -> None:
    with Firefox(farm) as device:
        _, endpoint = device.register()
        pushed(endpoint, "x" * 5630)
        assert error(post(endpoint, "x" * 5631)) == (413, 104)
        assert device.bodies(1) == ["x" * 5630]


def test_with_pywebpush(farm: Farm) -> None:
    pywebpush = pytest.importorskip("pywebpush")
    http_ece = pytest.importorskip("http_ece")
    private, auth = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    signing = ec.generate_private_key(ec.SECP256R1())
    raw = signing.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    secret = encode(signing.private_numbers().private_value.to_bytes(32, "big"))
    with Firefox(farm) as device:
        for key in (None, encode(raw)):
            _, endpoint = device.register(key)
            keys = {"p256dh": encode(public), "auth": encode(auth)}
            for encoding in ("aes128gcm", "aesgcm"):
                answer = pywebpush.webpush(
                    {"endpoint": endpoint, "keys": keys},
                    f"with pywebpush \N{PUSHPIN} {encoding}",
                    vapid_private_key=secret,
                    vapid_claims={"sub": "mailto:a@example.org"},
                    content_encoding=encoding,
                    ttl=60,
                )
                assert answer.status_code == 201
                (note,) = device.notes(1)
                assert note["headers"]["encoding"] == encoding
                if encoding == "aes128gcm":
                    data = decode(note["data"])
                    clear = http_ece.decrypt(data, private_key=private, auth_secret=auth, version=encoding)
                    assert clear.decode() == f"with pywebpush \N{PUSHPIN} {encoding}"
                device.ack(note)


# ---------------------------------------------------------------------- what waits


def test_what_waits_comes_in_batches_topics_first_and_the_next_after_the_acks(farm: Farm) -> None:
    with Firefox(farm) as device:
        _, endpoint = device.register()
        _, other = device.register()
        away(farm, device)
    for number in range(22):
        pushed(other if number % 2 else endpoint, f"{number}")
    pushed(endpoint, "replaced", Topic="news")
    pushed(other, "of another channel", Topic="news")
    pushed(endpoint, "newest", Topic="news", Urgency="high")
    with Firefox(farm, device.uaid) as again:
        assert again.uaid == device.uaid
        first = again.notes(10)
        assert sorted(map(body_of, first[:2])) == ["newest", "of another channel"]
        assert [body_of(note) for note in first[2:]] == [f"{number}" for number in range(8)]
        again.ack(*first[1:])
        again.nothing()
        pushed(endpoint, "direct")  # does not wait for the others
        (direct,) = again.notes(1)
        assert body_of(direct) == "direct"
        again.ack(first[0])
        again.nothing()
        again.ack(direct)
        assert again.bodies(10) == [f"{number}" for number in range(8, 18)]
        assert again.bodies(4) == [f"{number}" for number in range(18, 22)]
        again.nothing()
    with Firefox(farm, device.uaid) as again:
        again.nothing()


def test_what_was_acknowledged_never_comes_again_and_the_rest_does(farm: Farm) -> None:
    with Firefox(farm) as device:
        _, endpoint = device.register()
        for number in range(5):
            pushed(endpoint, f"{number}")
        pushed(endpoint, "topic", Topic="t")
        live = device.notes(6)
        device.ack(live[1], live[3], live[3])
        device.nothing()
        away(farm, device)
    with Firefox(farm, device.uaid) as again:
        waiting = again.notes(4)
        assert [body_of(note) for note in waiting] == ["topic", "0", "2", "4"]
        known = {body_of(note): note["version"] for note in live}
        assert all(note["version"] == known[body_of(note)] for note in waiting)
        again.ack(waiting[0], waiting[2])
        again.nothing()
    with Firefox(farm, device.uaid) as again:
        assert again.bodies(2) == ["0", "4"]
        again.nothing()
    with Firefox(farm, device.uaid) as again:
        again.nothing()


def test_the_ack_of_a_replaced_message_leaves_the_newer(farm: Farm) -> None:
    with Firefox(farm) as device:
        _, endpoint = device.register()
        pushed(endpoint, "old", Topic="t")
        (old,) = device.notes(1)
        pushed(endpoint, "new", Topic="t")
        (new,) = device.notes(1)
        assert old["version"] != new["version"]
        device.ack(old)
        device.nothing()
    with Firefox(farm, device.uaid) as again:
        assert again.bodies(1) == ["new"]
        again.nothing()


def test_a_ttl_of_0_is_for_those_who_are_here(farm: Farm) -> None:
    with Firefox(farm) as device:
        _, endpoint = device.register()
        assert post(endpoint, "now", TTL="0").headers["ttl"] == "0"
        assert device.bodies(1) == ["now"]
        away(farm, device)
    pushed(endpoint, "gone", TTL="0")
    with Firefox(farm, device.uaid) as again:
        again.nothing()


def test_a_message_can_be_deleted_by_its_sender(farm: Farm) -> None:
    with Firefox(farm) as device:
        _, endpoint = device.register()
        away(farm, device)
    locations = [pushed(endpoint, text, **more) for text, more in (("a", {}), ("b", {"Topic": "t"}), ("c", {}))]
    assert [request("DELETE", location).status for location in locations[:2]] == [204, 204]
    assert request("DELETE", farm.url("/m/nonsense")).status == 400
    with Firefox(farm, device.uaid) as again:
        assert again.bodies(1) == ["c"]
        again.nothing()


def test_a_device_may_leave_so_much_unacknowledged(narrow: Farm) -> None:
    with Firefox(narrow) as device:
        _, endpoint = device.register()
        for number in range(8):
            pushed(endpoint, f"{number}")
        first = device.notes(3)
        device.nothing()
        device.ack(*first)
        assert [body_of(note) for note in first] == ["0", "1", "2"]
        assert device.bodies(2) == ["3", "4"]
        assert device.bodies(2) == ["5", "6"]
        assert device.bodies(1) == ["7"]
        device.nothing()


# ---------------------------------------------------------------------- subscriptions and uaids


def test_after_unregister_the_sender_is_told_410(farm: Farm) -> None:
    with Firefox(farm) as device:
        channel, endpoint = device.register()
        _, kept_endpoint = device.register()
        pushed(endpoint, "a")
        pushed(kept_endpoint, "b")
        live = device.notes(2)
        device.unregister(channel)
        answer = post(endpoint, "c")
        assert error(answer) == (410, 106)
        assert answer.headers["cache-control"] == "max-age=86400"
        device.unregister(channel)
        device.nothing()
        device.ack(live[0])
    with Firefox(farm, device.uaid) as again:
        assert again.bodies(1) == ["b"]
        again.nothing()
        assert post(endpoint, "c").status == 410
        _, renewed = again.register(channel=channel)
        pushed(renewed, "d")
        assert again.bodies(1) == ["d"]


def test_a_uaid_that_is_not_known_is_replaced(farm: Farm) -> None:
    with Firefox(farm) as device:
        never_registered = device.uaid
    for uaid in (never_registered, "0" * 32, "", "x", new_channel()):
        with Firefox(farm, uaid) as device:
            assert device.uaid != uaid
            assert len(device.uaid) == 32


def test_a_device_may_have_so_many_channels(narrow: Farm) -> None:
    with Firefox(narrow) as device:
        first, _ = device.register()
        device.register()
        reply = device.ask(messageType="register", channelID=new_channel())
        assert reply["status"] == 400
        device.register(channel=first)
        device.unregister(first)
        device.register()


def test_the_newest_connection_wins(farm: Farm) -> None:
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(Firefox(farm))
        _, endpoint = holder.register()
        for number in range(8):
            newer = stack.enter_context(Firefox(farm, holder.uaid))
            assert holder.close_code() == 1001
            holder = newer
            pushed(endpoint, f"{number}")
            assert holder.bodies(1) == [f"{number}"]
            holder.nothing()


# ---------------------------------------------------------------------- what a device may not say


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("nonsense", 1008),
        ("[]", 1008),
        ('{"messageType":"hello","use_webpush":true}', 1008),
        ('{"messageType":"purge"}', 1008),
        ('{"messageType":"register","channelID":"x"}', 1008),
        ('{"messageType":"register","channelID":"AAAAAAAA-2222-3333-4444-555555555555"}', 1008),
        ('{"messageType":"ack"}', 1008),
        ('{"messageType":"ack","updates":' + "[" * 50_000, 1008),
        (b"{}", 1003),
    ],
)
def test_close_codes(farm: Farm, message: str | bytes, code: int) -> None:
    with Firefox(farm) as device:
        if isinstance(message, str):
            device.socket.send(message)
        else:
            device.socket.send_binary(message)
        assert device.close_code() == code


def test_pings(farm: Farm) -> None:
    with Firefox(farm) as device:
        assert device.ask() == {}
        device.send({"messageType": "ping"})
        assert device.close_code() == 1008


@pytest.mark.parametrize("first", ["{}", "x", '{"messageType":"register"}', None])
def test_where_webpush_is_alone_hello_comes_first_and_soon(narrow: Farm, first: str | None) -> None:
    device = websocket.create_connection(narrow.device_url, timeout=PATIENCE_S)
    if first is not None:
        device.send(first)
    opcode, payload = device.recv_data(control_frame=True)
    assert (opcode, payload[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1008).to_bytes(2, "big"))
    device.shutdown()


def test_simplepush_on_the_same_path_is_not_disturbed(farm: Farm) -> None:
    with Device(farm) as silent, Device(farm) as pinging, Device(farm) as device, Firefox(farm) as firefox:
        assert pinging.ask() == {}
        time.sleep(1.5)  # longer than WebPush would wait for a hello
        for simple in (silent, pinging, device):
            assert simple.hello() == {"messageType": "hello", "uaid": simple.uaid, "status": 200}
            channel, endpoint = simple.register()
            assert put(endpoint, 7) == 200
            assert simple.updates() == [(channel, 7)]
            simple.ack((channel, 7))
            simple.settle()
        _, endpoint = firefox.register()
        pushed(endpoint, "a")
        assert firefox.bodies(1) == ["a"]


def test_a_device_that_uses_its_uaid_in_both_dialects_harms_only_itself(farm: Farm) -> None:
    with Firefox(farm) as firefox:
        _, endpoint = firefox.register()
    with Device(farm) as simple:
        simple.hello(firefox.uaid)
        _, update = simple.register()
    until(lambda: put(update, 5) == 202, "the farm knows that the device is away")
    assert post(update.replace("/update/", "/wpush/v1/")).status == 404
    assert put(endpoint.replace("/wpush/v1/", "/update/"), 6) == 404
    pushed(endpoint, "a")
    with Firefox(farm, firefox.uaid) as firefox:
        assert firefox.bodies(1) == ["a"]
        assert put(update, 6) == 202
        pushed(endpoint, "b")
        assert firefox.bodies(1) == ["b"]
        firefox.nothing()


@pytest.mark.parametrize("channels", [[], ["0b4a7f0e-0000-4000-8000-000000000001"]])
def test_a_uaid_of_one_dialect_is_unknown_to_the_other(farm: Farm, channels: list[str]) -> None:
    with Firefox(farm) as firefox, Device(farm) as simple, Device(farm) as other:
        _, endpoint = firefox.register()
        hello = simple.ask(messageType="hello", uaid=firefox.uaid, channelIDs=channels)
        assert hello["status"] == 200
        assert (hello["uaid"] == firefox.uaid) is not bool(channels)  # with channels only a uaid that is known is taken
        pushed(endpoint, "a")
        assert firefox.bodies(1) == ["a"]
        other.hello()
        channel, update = other.register()
        with Firefox(farm, other.uaid) as fresh:
            assert fresh.uaid != other.uaid
            assert put(update, 1) == 200
            assert other.updates() == [(channel, 1)]


def test_a_second_connection_of_a_uaid_without_channels_replaces_the_first(farm: Farm) -> None:
    for _ in range(6):  # on one worker or on two
        with Firefox(farm) as first, Firefox(farm, first.uaid) as second:
            assert second.uaid != first.uaid
            assert first.close_code() == 1001
    for channels in ([], [new_channel()]):
        for _ in range(6):
            with Device(farm) as older, Device(farm) as newer:
                older.hello()
                hello = newer.ask(messageType="hello", uaid=older.uaid, channelIDs=channels)
                assert (hello["uaid"] == older.uaid) is not bool(channels)
                assert older.close_code() == 1001


# ---------------------------------------------------------------------- broadcasts


def set_broadcast(farm: Farm, broadcast: str, version: str | None) -> int:
    """Returns: the status."""
    url = f"http://127.0.0.1:{farm.admin_port}/broadcasts/{broadcast}"
    if version is None:
        return request("DELETE", url).status
    return request("PUT", url, version.encode()).status


def broadcasts(farm: Farm) -> Json:
    status, body = farm.admin("/broadcasts")
    assert status == 200
    found: Json = json.loads(body)
    return found


def test_broadcasts_reach_their_followers(farm: Farm) -> None:
    assert set_broadcast(farm, ID, '"1"\n') == 204
    assert broadcasts(farm) == {ID: '"1"'}
    with contextlib.ExitStack() as stack:
        # Of twelve, each of the two shards has some.
        followers = [stack.enter_context(Firefox(farm, None, {ID: '"0"', "late": "x"})) for _ in range(12)]
        for device in followers:
            assert device.greeting["broadcasts"] == {ID: '"1"', "errors": {"late": "Broadcast not found"}}
        other = stack.enter_context(Firefox(farm))
        up_to_date = stack.enter_context(Firefox(farm, None, {ID: '"1"'}))
        assert up_to_date.greeting["broadcasts"] == {}
        assert set_broadcast(farm, ID, '"2"') == 204
        for device in (*followers, up_to_date):
            assert device.message() == {"messageType": "broadcast", "broadcasts": {ID: '"2"'}}
        assert set_broadcast(farm, "late", "1") == 204
        for device in followers:
            assert device.message() == {"messageType": "broadcast", "broadcasts": {"late": "1"}}
        other.send({"messageType": "broadcast_subscribe", "broadcasts": {ID: '"1"'}})
        assert other.message() == {"messageType": "broadcast", "broadcasts": {ID: '"2"'}}
        for device in (*followers, up_to_date, other):
            device.nothing()
    assert set_broadcast(farm, "late", None) == 204
    assert set_broadcast(farm, "late", None) == 204
    with Firefox(farm, None, {"late": "1"}) as device:
        assert device.greeting["broadcasts"] == {"errors": {"late": "Broadcast not found"}}


def test_broadcasts_survive_the_router_and_the_farm(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", CRASH) as farm, contextlib.ExitStack() as stack:
        assert set_broadcast(farm, ID, "1") == 204
        followers = [stack.enter_context(Firefox(farm, None, {ID: "1"})) for _ in range(6)]
        os.kill(farm.router_pid(), signal.SIGKILL)
        farm.wait_healthy()
        assert broadcasts(farm) == {ID: "1"}
        assert set_broadcast(farm, ID, "2") == 204
        for device in followers:
            # Nobody was told anew of what had not changed.
            assert device.message() == {"messageType": "broadcast", "broadcasts": {ID: "2"}}
        os.kill(farm.worker_pid(0), signal.SIGKILL)
        farm.wait_healthy()
        for _ in range(6):
            with Firefox(farm, None, {ID: "1"}) as device:
                assert device.greeting["broadcasts"] == {ID: "2"}
        farm.kill()
        farm.start()
        assert broadcasts(farm) == {ID: "2"}
        with Firefox(farm, None, {ID: "1"}) as device:
            assert device.greeting["broadcasts"] == {ID: "2"}


def test_bad_broadcasts(narrow: Farm) -> None:
    url = f"http://127.0.0.1:{narrow.admin_port}/broadcasts"
    for broadcast in ("a", "b/c", "d%20e"):
        assert set_broadcast(narrow, broadcast, "1") == 204
    assert set_broadcast(narrow, "one/more", "1") == 400
    assert set_broadcast(narrow, "a", "2") == 204
    assert broadcasts(narrow) == {"a": "2", "b/c": "1", "d e": "1"}
    for broadcast, version in (
        ("a", b""),
        ("a", b" \n"),
        ("a", b"\xff"),
        ("a", b"1\x002"),
        ("a", b"x" * 1025),
        ("a", b"x" * 1_000_000),
        ("x" * 257, b"1"),
        ("errors", b"1"),
        ("", b"1"),
        ("%00", b"1"),
    ):
        assert request("PUT", f"{url}/{broadcast}", version).status == 400, (broadcast[:20], version[:20])
    assert request("POST", f"{url}/a", b"1").status == 405
    assert request("PUT", url, b"1").status == 405
    assert broadcasts(narrow) == {"a": "2", "b/c": "1", "d e": "1"}
    for broadcast in ("a", "b/c", "d%20e"):
        assert set_broadcast(narrow, broadcast, None) == 204
    with Firefox(narrow, None, {"a": "1", "b": "1"}) as device:
        device.send({"messageType": "broadcast_subscribe", "broadcasts": {"c": "1"}})
        assert device.close_code() == 1008


def test_while_the_router_is_away_broadcasts_are_answered_503(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", CRASH, workers=1) as farm:
        router = farm.router_pid()
        os.kill(router, signal.SIGSTOP)
        try:
            assert set_broadcast(farm, ID, "1") == 503
            assert farm.admin("/broadcasts")[0] == 503
        finally:
            os.kill(router, signal.SIGCONT)
        farm.wait_healthy()
        assert set_broadcast(farm, ID, "2") == 204
        assert broadcasts(farm) == {ID: "2"}


# ---------------------------------------------------------------------- kill -9 under traffic


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Something that blocks, while the traffic goes on."""
    return await trio.to_thread.run_sync(function, *arguments)


async def soon(found: Callable[[], object], what: str, details: Callable[[], object] = str) -> None:
    """Wait until something is true."""
    with trio.move_on_after(3 * PATIENCE_S):
        while not found():
            await trio.sleep(0.02)
        return
    raise AssertionError(f"not within {3 * PATIENCE_S:g} s: {what} {details()}")


@dataclass
class Subscription:
    """One channel in the ledger."""

    channel: str
    endpoint: str
    accepted: set[str] = field(default_factory=set)
    """The texts that were answered 201."""


class Page:
    """A device on trio-websocket that connects again whenever it has lost its connection."""

    def __init__(self, farm: Farm, acks: bool) -> None:
        self._farm = farm
        self.acks = acks
        self.uaid = ""
        self.subscriptions: dict[str, Subscription] = {}
        self.heard: dict[str, set[str]] = {}
        self.online = False
        self.connections = 0

    @property
    def missing(self) -> list[tuple[str, set[str]]]:
        """What was accepted and has not been heard."""
        found = [(c, s.accepted - self.heard.get(c, set())) for c, s in self.subscriptions.items()]
        return [(channel, texts) for channel, texts in found if texts]

    async def live(self) -> None:
        """Connect, listen, connect again."""
        while True:
            await self._connection(self._listen)
            await trio.sleep(0.05)

    async def drain(self) -> None:
        """Say hello anew and acknowledge everything, until all has been heard; then nothing may be left."""
        self.acks = True
        await self._connection(self._until_complete)
        await self._connection(self._until_settled)

    async def _connection(self, conversation: Callable[[Any, set[str]], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            try:
                socket = await trio_websocket.connect_websocket_url(nursery, self._farm.device_url)
            except (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed):
                return
            try:
                hello = {"messageType": "hello", "uaid": self.uaid, "broadcasts": {}, "use_webpush": True}
                await socket.send_message(json.dumps(hello))
                reply = json.loads(await socket.get_message())
                assert reply["status"] == 200, reply
                assert self.uaid in ("", reply["uaid"]), "the farm has forgotten a device"
                self.connections += 1
                self.online = True
                seen: set[str] = set()
                for _ in range(CHANNELS - len(self.subscriptions)):
                    await self._register(socket, seen, reply["uaid"])
                await conversation(socket, seen)
            except trio_websocket.ConnectionClosed:
                pass
            finally:
                self.online = False
                with trio.move_on_after(2) as scope:
                    scope.shield = True
                    await socket.aclose()
                nursery.cancel_scope.cancel()

    async def _register(self, socket: Any, seen: set[str], uaid: str) -> None:
        reply = await self._ask(socket, seen, messageType="register", channelID=new_channel())
        assert reply["status"] == 200, reply
        # Known from its first registration on: a uaid that has none may be replaced.
        self.uaid = uaid
        channel = reply["channelID"]
        self.subscriptions[channel] = Subscription(channel, reply["pushEndpoint"])

    async def _ask(self, socket: Any, seen: set[str], **command: Any) -> Json:
        await socket.send_message(json.dumps(command))
        while (message := json.loads(await socket.get_message()))["messageType"] == "notification":
            await self._note(socket, seen, message)
        return dict(message)

    async def _note(self, socket: Any, seen: set[str], note: Json) -> None:
        assert note["version"] not in seen, "twice on one connection"
        seen.add(note["version"])
        self.heard.setdefault(note["channelID"], set()).add(body_of(note))
        if self.acks:
            update = {"channelID": note["channelID"], "version": note["version"], "code": 100}
            await socket.send_message(json.dumps({"messageType": "ack", "updates": [update]}))

    async def _listen(self, socket: Any, seen: set[str]) -> None:
        while True:
            await self._note(socket, seen, json.loads(await socket.get_message()))

    async def _until_complete(self, socket: Any, seen: set[str]) -> None:
        with trio.fail_after(3 * PATIENCE_S):
            # Whatever may come after the last that is missing, is acknowledged too.
            while self.missing:
                await self._note(socket, seen, json.loads(await socket.get_message()))
            while True:
                before = len(seen)
                reply = await self._ask(socket, seen, messageType="unregister", channelID=new_channel())
                assert reply["status"] == 200, reply
                if len(seen) == before:
                    return

    async def _until_settled(self, socket: Any, seen: set[str]) -> None:
        await self._ask(socket, seen, messageType="unregister", channelID=new_channel())
        assert not seen, "what was acknowledged came again"


class Traffic:
    """Devices and senders, and the ledger of what was answered 201."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._stop = threading.Event()
        # Most acknowledge; one in eight does so only in the end.
        self.pages = [Page(farm, acks=number % 8 != 0) for number in range(DEVICES)]
        self._senders: list[threading.Thread] = []
        self._faults: list[str] = []

    def _push(self, subscriptions: list[Subscription]) -> None:
        connection: http.client.HTTPConnection | None = None
        number = 0
        headers = {"TTL": "86400", "Content-Encoding": "aes128gcm"}
        while not self._stop.is_set():
            number += 1
            for subscription in subscriptions:
                text = f"{number}"
                try:
                    if connection is None:
                        connection = http.client.HTTPConnection("127.0.0.1", self._farm.router_port, timeout=PATIENCE_S)
                    connection.request("POST", urlsplit(subscription.endpoint).path, text.encode(), headers)
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException):
                    if connection is not None:
                        connection.close()
                    connection = None
                    time.sleep(0.05)
                    continue
                if answer.status == 201:
                    subscription.accepted.add(text)
                elif answer.status != 503:
                    self._faults.append(f"{answer.status} {subscription.endpoint}")
                time.sleep(0.002)
        if connection is not None:
            connection.close()

    def everybody_is_back(self) -> bool:
        """Whether all are connected and have their channels."""
        return all(page.online and len(page.subscriptions) == CHANNELS for page in self.pages)

    async def pushes_arrive(self) -> None:
        """Wait until every device that acknowledges has heard something new on every channel."""
        await soon(self.everybody_is_back, "all are connected")
        pages = [page for page in self.pages if page.acks]
        before = {channel: len(page.heard.get(channel, ())) for page in pages for channel in page.subscriptions}

        def waiting() -> list[str]:
            return [c for page in pages for c in page.subscriptions if len(page.heard.get(c, ())) <= before[c]]

        await soon(lambda: not waiting(), "every device hears something new", waiting)

    async def run(self, act: Callable[[Traffic], Awaitable[None]]) -> None:
        """Do something under traffic, and check the ledger in the end."""
        try:
            async with trio.open_nursery() as nursery:
                for page in self.pages:
                    nursery.start_soon(page.live)
                await soon(self.everybody_is_back, "all have subscribed")
                every = [s for page in self.pages for s in page.subscriptions.values()]
                for number in range(PUSHERS):
                    thread = threading.Thread(target=self._push, args=(every[number::PUSHERS],))
                    self._senders.append(thread)
                    thread.start()
                await self.pushes_arrive()
                await act(self)
                await self.pushes_arrive()
                await in_thread(self._hang_up)
                here = [page for page in self.pages if page.acks]
                await soon(lambda: not any(page.missing for page in here), "everything is heard without a reconnect")
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                for page in self.pages:
                    nursery.start_soon(page.drain)
        finally:
            self._hang_up()
        assert not self._faults
        assert not [page.missing for page in self.pages if page.missing]

    def _hang_up(self) -> None:
        self._stop.set()
        for thread in self._senders:
            thread.join()


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that outlives what is done to its processes."""
    with running_farm(tmp_path_factory.mktemp("crashing") / "data", CRASH) as farm:
        yield farm


def test_kill_the_router_again_and_again(crashing: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        connections = [page.connections for page in traffic.pages]
        for _ in range(3):
            os.kill(await in_thread(crashing.router_pid), signal.SIGKILL)
            await in_thread(crashing.wait_healthy)
            await traffic.pushes_arrive()
        assert [page.connections for page in traffic.pages] == connections

    trio.run(Traffic(crashing).run, act)


def test_kill_workers_and_the_router(crashing: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        for shard in (0, 1):
            os.kill(await in_thread(crashing.worker_pid, shard), signal.SIGKILL)
            await in_thread(crashing.wait_healthy)
            await traffic.pushes_arrive()
        status = await in_thread(crashing.status)
        for pid in (status["router"]["pid"], status["workers"][0]["pid"]):
            os.kill(pid, signal.SIGKILL)
        await in_thread(crashing.wait_healthy)

    trio.run(Traffic(crashing).run, act)


def test_kill_everything(tmp_path: Path) -> None:
    async def act(traffic: Traffic) -> None:
        for _ in range(2):
            await in_thread(farm.kill)
            await in_thread(farm.start)
            await traffic.pushes_arrive()

    with running_farm(tmp_path / "data", CRASH) as farm:
        trio.run(Traffic(farm).run, act)


def test_what_came_while_its_worker_stood_still_reaches_a_device_that_stayed(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", CRASH, workers=1) as farm, Firefox(farm) as device:
        _, endpoint = device.register()
        pushed(endpoint, "before")
        (before,) = device.notes(1)
        worker = farm.worker_pid(0)
        os.kill(worker, signal.SIGSTOP)
        try:
            until(lambda: farm.status()["router"]["leases_lost"], "the worker has lost its lease")
            for number in range(23):
                pushed(endpoint, f"{number}")
            pushed(endpoint, "topic", Topic="t")
        finally:
            os.kill(worker, signal.SIGCONT)
        # One is under way already, so there is room for nine; the rest follows the acks.
        first = device.notes(9)
        assert [body_of(note) for note in first] == ["topic", *(f"{number}" for number in range(8))]
        device.nothing()
        device.ack(before, *first)
        assert device.bodies(10) == [f"{number}" for number in range(8, 18)]
        assert device.bodies(5) == [f"{number}" for number in range(18, 23)]
        device.nothing()


def test_registrations_while_the_router_dies_again_and_again(crashing: Farm) -> None:
    async def main() -> None:
        pages = [Page(crashing, acks=True) for _ in range(40)]
        killed = 0
        async with trio.open_nursery() as nursery:
            for page in pages:
                nursery.start_soon(page.live)
            while not all(page.online and len(page.subscriptions) == CHANNELS for page in pages) or killed < 4:
                await trio.sleep(0.3)
                if killed < 4:
                    killed += 1
                    os.kill(await in_thread(crashing.router_pid), signal.SIGKILL)
                    await in_thread(crashing.wait_healthy)
            # Everybody whose register was answered can be pushed to.
            for page in pages:
                for subscription in page.subscriptions.values():
                    assert (await in_thread(post, subscription.endpoint, "a")).status == 201
                    subscription.accepted.add("a")
            await soon(lambda: not any(page.missing for page in pages), "all have heard it")
            nursery.cancel_scope.cancel()

    trio.run(main)


# ---------------------------------------------------------------------- UnifiedPush


@pytest.mark.parametrize("uaid", [None, "null"])
def test_what_distributors_say_first_is_understood_if_the_settings_say_so(tmp_path: Path, uaid: str | None) -> None:
    nulls: Json = {"uaid": None, "channelIDs": None}
    bare: Json = {"messageType": "hello"} | ({} if uaid is None else nulls)
    with running_farm(tmp_path / "data", {"webpush.bare_hello": True}, workers=1) as farm:
        for first, webpush in ((bare, True), ({"messageType": "hello", "channelIDs": [], "uaid": ""}, False)):
            device = websocket.create_connection(farm.device_url, timeout=PATIENCE_S)
            try:
                device.send(json.dumps(first))
                greeting = json.loads(device.recv())
                assert greeting["status"] == 200
                assert greeting.get("use_webpush", False) is webpush
            finally:
                device.close()
