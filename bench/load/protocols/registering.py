"""What SimplePush and WebPush devices have in common: they say hello, register one channel after the other, and come
back with the identity that the server gave them.

The shapes that a server sends nearly always are read by fixed offsets; anything else goes through a JSON parser, so
that a server that writes its JSON in another way is measured all the same.

A channel's ID is made of the process's seed and the channel's number, so that nothing is kept for it.
"""

import json
from typing import Any, Final

from bench.load.frames import PeerError, client_frame
from bench.load.protocols.base import DONE, Protocol, Scenario, Step

_UAID: Final = b'"uaid":"'
_PREFIX_CHARS: Final = 24

_HELLO: Final = 0
_REGISTER: Final = 1


class Registering(Protocol):
    """A device that registers. It comes back with its uaid, and then has nothing to register, unless it gets another.

    A dialect has `first_hello`, the hello of a device that never was there, and makes the other messages."""

    steps = ("hello", "register")
    ping = client_frame(b"{}")
    first_hello: bytes

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.channels = scenario.channels
        self.payload = scenario.payload
        digits = scenario.seed.hex()
        self._prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:18]}-".encode()
        self._first = client_frame(self.first_hello)
        self._hyphens = False  # a server gives all its uaids one spelling

    def hello(self, device: int, uaid: bytes) -> bytes:
        """The hello of a device that comes back."""
        raise NotImplementedError

    def registration(self, channel: bytes) -> bytes:
        """The message that registers a channel."""
        raise NotImplementedError

    def welcomed(self, payload: bytes) -> bytes | None:
        """The uaid in an accepted hello, see `uaid_of`."""
        return uaid_of(payload)

    def opened(self, device: int, identity: bytes) -> Step:
        if not identity:
            return Step(self._first, _HELLO)
        return Step(client_frame(self.hello(device, self._spelled(identity))), _HELLO)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        if step == _HELLO:
            uaid = self.welcomed(payload)
            if uaid is None:
                return None
            self._hyphens = b"-" in uaid
            mine = _key(uaid)
            if mine and mine == identity:
                return Step(b"", DONE, identity=mine)
            return Step(self._register(device, 0), _REGISTER, identity=mine)
        endpoint = endpoint_of(payload)
        if endpoint is None:
            return None
        number = step - _REGISTER
        channel = device * self.channels + number
        if number + 1 == self.channels:
            return Step(b"", DONE, channel, endpoint)
        return Step(self._register(device, number + 1), step + 1, channel, endpoint)

    def channel_id(self, number: int) -> bytes:
        """A UUIDv4, lower case, with hyphens."""
        return self._prefix + b"%012x" % number

    def channel_ids(self, device: int) -> list[bytes]:
        """Those of a device."""
        first = device * self.channels
        return [self.channel_id(number) for number in range(first, first + self.channels)]

    def number_of(self, channel: bytes) -> int:
        """The number of a channel, negative for an ID that is none of this process."""
        if len(channel) != 36 or channel[:_PREFIX_CHARS] != self._prefix:
            return -1
        try:
            return int(channel[_PREFIX_CHARS:], 16)
        except ValueError:
            return -1

    def _register(self, device: int, number: int) -> bytes:
        return client_frame(self.registration(self.channel_id(device * self.channels + number)))

    def _spelled(self, identity: bytes) -> bytes:
        digits = identity.hex().encode()
        if not self._hyphens:
            return digits
        return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def uaid_of(payload: bytes) -> bytes | None:
    """The uaid in an accepted hello, empty if there is none in it; None for a message that is not the answer (a ping).

    Raises:
      PeerError: refused; the text is `status N`.
    """
    if b'"hello"' in payload and b'"status":200' in payload:
        start = payload.find(_UAID) + len(_UAID)
        return payload[start : payload.find(b'"', start)] if start >= len(_UAID) else b""
    answer = _answer(payload, "hello")
    return None if answer is None else str(answer.get("uaid") or "").encode()


def _key(uaid: bytes) -> bytes:
    """The 16 bytes of a uaid, empty for one that is no UUID: its device can only come back as a new one."""
    try:
        key = bytes.fromhex(uaid.decode("ascii", "replace").replace("-", ""))
    except ValueError:
        return b""
    return key if len(key) == 16 else b""


def endpoint_of(payload: bytes) -> bytes | None:
    """The push endpoint in the answer to a register, None for a message that is not the answer.

    Raises:
      PeerError: refused (`status N`), or no endpoint in it.
    """
    if b'"status":200' in payload:
        start = payload.find(b'"pushEndpoint":"') + 16
        endpoint = payload[start : payload.find(b'"', start)] if start >= 16 else b""
        if endpoint and b"\\" not in endpoint:
            return endpoint
    answer = _answer(payload, "register")
    if answer is None:
        return None
    endpoint_text = answer.get("pushEndpoint")
    if not isinstance(endpoint_text, str):
        raise PeerError("no endpoint")
    return endpoint_text.encode()


def _answer(payload: bytes, kind: str) -> dict[str, Any] | None:
    message = object_of(payload)
    status = message.get("status")
    if status is not None and status != 200:
        raise PeerError(f"status {status}")
    return message if message.get("messageType") == kind and status == 200 else None


def object_of(payload: bytes) -> dict[str, Any]:
    """A message as JSON has it.

    Raises:
      PeerError: it is no JSON object.
    """
    try:
        message = json.loads(payload)
    except ValueError:
        raise PeerError("not JSON") from None
    if not isinstance(message, dict):
        raise PeerError("not a JSON object")
    return message
