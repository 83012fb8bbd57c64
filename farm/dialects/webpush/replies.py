"""The messages that a WebPush device is sent, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.dialects.webpush.protocol import channel_of, wire_version

_encode = msgspec.json.Encoder().encode


def hello(uaid: str, broadcasts: Mapping[str, Any]) -> bytes:
    """broadcasts: what the device does not have yet of those that it named, and errors."""
    reply = {"messageType": "hello", "uaid": uaid, "status": 200, "use_webpush": True, "broadcasts": broadcasts}
    return _encode(reply)


def notification(slot: str, version: int, body: str | None) -> bytes:
    # A body is a piece of JSON already, made by the app-server side.
    rest = f",{body}}}" if body else "}"
    head = '{"messageType":"notification","channelID":"'
    return f'{head}{channel_of(slot)}","version":"{wire_version(slot, version)}"{rest}'.encode()


def registered(channel: str, status: int, endpoint: str) -> bytes:
    return _encode({"messageType": "register", "channelID": channel, "status": status, "pushEndpoint": endpoint})


def unregistered(channel: str, status: int) -> bytes:
    return _encode({"messageType": "unregister", "channelID": channel, "status": status})


def broadcast(broadcasts: Mapping[str, Any]) -> bytes:
    return _encode({"messageType": "broadcast", "broadcasts": broadcasts})
