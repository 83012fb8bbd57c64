"""How the bench speaks WebPush: its devices and its app servers."""

import json
import time
from base64 import urlsafe_b64decode
from typing import Any

import h11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    TextMessage,
)

from bench.load import frames
from bench.load.frames import PeerError
from bench.load.protocols import webpush
from bench.load.protocols.base import DONE, PONG, Received, Scenario, Step
from bench.load.protocols.webpush import (
    STAMP_BYTES,
    base64_of,
    head_of_webpush,
    opaque_of,
    version_in,
    webpush_request,
)
from bench.load.samples import (
    DATA_MISSING,
    DATA_RIGHT,
    DATA_WRONG,
)
from bench.load.webpush_vapid import VapidSigner

CHANNEL = b"0f9e8d7c-6b5a-4433-8221-100f0e0d0c0b"


def test_webpush_messages_in_every_shape() -> None:
    scenario = Scenario("farm:8080", channels=2, payload=50)
    protocol = webpush.WebPush(scenario, key="BK")
    channel = protocol.channel_id(11).decode()
    assert json.loads(protocol.registration(channel.encode())) == {
        "messageType": "register",
        "channelID": channel,
        "key": "BK",
    }
    note: dict[str, Any] = {"messageType": "notification", "channelID": channel, "version": 'a"\\#'}
    note |= {"data": base64_of(opaque_of(1234567890123, 50)), "headers": {"encoding": "aes128gcm"}}

    def received(**fields: Any) -> Received:
        found = protocol.received(5, json.dumps(note | fields, indent=1).encode())
        assert found is not None
        return found

    good = received()
    assert good.updates == ((11, 1234567890123, DATA_RIGHT),) and not good.strays
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(frames.upgrade_request("farm:8080", "/"))
    list(server.events())
    server.send(AcceptConnection())
    server.receive_data(good.reply)
    (ack,) = server.events()
    assert isinstance(ack, TextMessage)
    assert json.loads(ack.data) == {
        "messageType": "ack",
        "updates": [{"channelID": channel, "version": note["version"], "code": 100}],
    }
    assert received(data=base64_of(opaque_of(1234567890123, 51))).updates == ((11, 1234567890123, DATA_WRONG),)
    assert received(headers={"encoding": "aesgcm"}).updates[0][2] == DATA_WRONG
    assert received(headers=None).updates[0][2] == DATA_WRONG
    assert received(data=None).updates == received(data="").updates == ((11, 0, DATA_MISSING),)
    for text in ("A" * 11, "\u00e4" * 12, "!" * 70, "_" * 70):  # no version, or one of 72 bits
        assert received(data=text).updates == ((11, 0, DATA_WRONG),)
    for other in (str(CHANNEL), protocol.channel_id(12).decode()):
        assert received(channelID=other) == Received(strays=1)
    assert protocol.received(5, b"{}") == protocol.received(5, b'{"messageType":"ping"}') == PONG
    assert protocol.received(5, b'{"messageType":"broadcast","broadcasts":{"a":"1"}}') is None
    for bad in (b"nonsense", b"[]", b'{"messageType":"notification","channelID":"b"}', b'{"messageType":7}'):
        with pytest.raises(PeerError):
            protocol.received(5, bad)


def test_a_webpush_device_is_set_up_and_comes_back() -> None:
    protocol = webpush.WebPush(Scenario("farm:8080", channels=2), key="BK")
    uaid = "0123456789abcdef" * 2
    hello = json.dumps({"messageType": "hello", "uaid": uaid, "status": 200, "use_webpush": True}).encode()
    assert protocol.answered(0, 0, b"{}", b"") is None
    first = protocol.answered(0, 0, hello, b"")
    assert first is not None and first.identity.hex() == uaid and first.send and first.step == 1
    answer = b'{"messageType":"register","channelID":"c","status":200,"pushEndpoint":"http://h/wpush/v2/%d"}'
    second = protocol.answered(0, 1, answer % 0, b"")
    assert second is not None and (second.channel, second.endpoint) == (0, b"http://h/wpush/v2/0") and second.send
    assert protocol.answered(0, 2, answer % 1, b"") == Step(b"", DONE, 1, b"http://h/wpush/v2/1")
    assert protocol.answered(0, 0, hello, first.identity) == Step(b"", DONE, identity=first.identity)
    other = protocol.answered(0, 0, hello, bytes(16))  # it was given another identity, and registers anew
    assert other is not None and other.step == 1
    for bad in (b'{"messageType":"hello","uaid":"a","status":200}', hello.replace(b"true", b"false")):
        with pytest.raises(PeerError, match="not WebPush"):
            protocol.answered(0, 0, bad, b"")
    with pytest.raises(PeerError, match="status 400"):
        protocol.answered(0, 1, b'{"messageType":"register","status":400,"pushEndpoint":"bad key"}', b"")


@given(st.integers(0, 2**63 - 1), st.integers(STAMP_BYTES, 6000))
def test_webpush_pushes_are_what_h11_reads(version: int, size: int) -> None:
    head = head_of_webpush("farm:8081", "vapid t=a.b.c, k=d")
    server = h11.Connection(h11.SERVER)
    server.receive_data(webpush_request(b"/wpush/v2/token", head, version, size))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"POST", b"/wpush/v2/token")
    headers = dict(request.headers)
    assert headers[b"authorization"] == b"vapid t=a.b.c, k=d" and headers[b"content-encoding"] == b"aes128gcm"
    assert int(headers[b"ttl"]) > 0
    body = server.next_event()
    assert isinstance(body, h11.Data) and len(body.data) == size and body.data == opaque_of(version, size)
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert version_in(base64_of(body.data)) == version
    if size > 60 and version:
        assert opaque_of(version - 1, size)[STAMP_BYTES:] != body.data[STAMP_BYTES:]


def test_a_vapid_header_is_signed() -> None:
    signer = VapidSigner()
    scheme, _, fields = signer.authorization("http://farm:8081").partition(" ")
    token, key = (field.strip().partition("=")[2] for field in fields.split(","))
    assert scheme == "vapid" and key == signer.public != VapidSigner().public

    def bytes_of(text: str) -> bytes:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))

    header, claims, signature = (bytes_of(part) for part in token.split("."))
    assert json.loads(header)["alg"] == "ES256"
    said = json.loads(claims)
    assert said["aud"] == "http://farm:8081" and time.time() < said["exp"] < time.time() + 86_400
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes_of(key))
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    public.verify(der, token.rpartition(".")[0].encode(), ec.ECDSA(SHA256()))
