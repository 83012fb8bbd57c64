"""WebPush through a farm of real processes, from a push to its device and its acknowledgement."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.farm_fixture import Farm, new_channel, running_farm
from support.webpush import Sender, UserAgent, away, body_of, decode, encode, error, post, pushed, request

pytestmark = pytest.mark.measured


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as farm:
        yield farm


def test_a_push_reaches_a_device_without_key(farm: Farm) -> None:
    with UserAgent(farm) as device:
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
    with UserAgent(farm) as device:
        _, endpoint = device.register(sender.key + "=")  # with padding, as UserAgent writes it
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
    with UserAgent(farm) as device:
        reply = device.ask(messageType="register", channelID=new_channel(), key="nonsense")
        assert reply["status"] == 400
        device.register()


def test_aesgcm_and_a_push_without_body(farm: Farm) -> None:
    with UserAgent(farm) as device:
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
    with UserAgent(farm) as device:
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
    with UserAgent(farm) as device:
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


def test_what_waits_comes_in_batches_topics_first_and_the_next_after_the_acks(farm: Farm) -> None:
    with UserAgent(farm) as device:
        _, endpoint = device.register()
        _, other = device.register()
        away(farm, device)
    for number in range(22):
        pushed(other if number % 2 else endpoint, f"{number}")
    pushed(endpoint, "replaced", Topic="news")
    pushed(other, "of another channel", Topic="news")
    pushed(endpoint, "newest", Topic="news", Urgency="high")
    with UserAgent(farm, device.uaid) as again:
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
    with UserAgent(farm, device.uaid) as again:
        again.nothing()


def test_what_was_acknowledged_never_comes_again_and_the_rest_does(farm: Farm) -> None:
    with UserAgent(farm) as device:
        _, endpoint = device.register()
        for number in range(5):
            pushed(endpoint, f"{number}")
        pushed(endpoint, "topic", Topic="t")
        live = device.notes(6)
        device.ack(live[1], live[3], live[3])
        device.nothing()
        away(farm, device)
    with UserAgent(farm, device.uaid) as again:
        waiting = again.notes(4)
        assert [body_of(note) for note in waiting] == ["topic", "0", "2", "4"]
        known = {body_of(note): note["version"] for note in live}
        assert all(note["version"] == known[body_of(note)] for note in waiting)
        again.ack(waiting[0], waiting[2])
        again.nothing()
    with UserAgent(farm, device.uaid) as again:
        assert again.bodies(2) == ["0", "4"]
        again.nothing()
    with UserAgent(farm, device.uaid) as again:
        again.nothing()


def test_the_ack_of_a_replaced_message_leaves_the_newer(farm: Farm) -> None:
    with UserAgent(farm) as device:
        _, endpoint = device.register()
        pushed(endpoint, "old", Topic="t")
        (old,) = device.notes(1)
        pushed(endpoint, "new", Topic="t")
        (new,) = device.notes(1)
        assert old["version"] != new["version"]
        device.ack(old)
        device.nothing()
    with UserAgent(farm, device.uaid) as again:
        assert again.bodies(1) == ["new"]
        again.nothing()


def test_a_ttl_of_0_is_for_those_who_are_here(farm: Farm) -> None:
    with UserAgent(farm) as device:
        _, endpoint = device.register()
        assert post(endpoint, "now", TTL="0").headers["ttl"] == "0"
        assert device.bodies(1) == ["now"]
        away(farm, device)
    pushed(endpoint, "gone", TTL="0")
    with UserAgent(farm, device.uaid) as again:
        again.nothing()


def test_a_message_can_be_deleted_by_its_sender(farm: Farm) -> None:
    with UserAgent(farm) as device:
        _, endpoint = device.register()
        away(farm, device)
    locations = [pushed(endpoint, text, **more) for text, more in (("a", {}), ("b", {"Topic": "t"}), ("c", {}))]
    assert [request("DELETE", location).status for location in locations[:2]] == [204, 204]
    assert request("DELETE", farm.url("/m/nonsense")).status == 400
    with UserAgent(farm, device.uaid) as again:
        assert again.bodies(1) == ["c"]
        again.nothing()
