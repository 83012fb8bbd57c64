"""What every protocol has: the types between it and the load process."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.load import frames
from bench.load.transports import WEBSOCKET, Transport

DONE: Final = 65_535
"""The step of a device that is set up."""

LAST_STEP: Final = 65_000
SEED_BYTES: Final = 9


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the devices of a load process have in common. `host`: the Host header's value. `channels`: how many each
    device has; channel k of a device has the number `device * channels + k`. `shared`: there are so many channels in
    all, each with many subscribers, and device d has only the one with the number d % shared; 0: no channel is shared.
    `payload`: bytes of data that every push carries, 0: none, and it is not checked. `seed`: bytes that no other
    process has."""

    host: str
    path: str = "/"
    channels: int = 1
    payload: int = 0
    seed: bytes = bytes(SEED_BYTES)
    shared: int = 0

    def channel_of(self, device: int) -> int:
        """The number of a device's first channel."""
        return device % self.shared if self.shared else device * self.channels


class Step(NamedTuple):
    """A step of a device's set-up: what to send now, and what it then waits for (`DONE`: nothing more). `channel` and
    `endpoint`: a push endpoint that it learnt. `identity`: what it presents when it comes back, 16 bytes.
    `again`: once it is set up, the same message is handed to `received`."""

    send: bytes
    step: int
    channel: int = 0
    endpoint: bytes = b""
    identity: bytes = b""
    again: bool = False


class Received(NamedTuple):
    """What a message to a device that is set up means: (channel number, version, DATA_... of `bench.load.samples`) of
    each update, whole frames to answer with, updates for channels that are not this device's, whether it answers a
    ping, and the position behind the last update, see `Protocol.resume`."""

    updates: tuple[tuple[int, int, int], ...] = ()
    reply: bytes = b""
    strays: int = 0
    pong: bool = False
    position: bytes = b""


PONG: Final = Received(pong=True)


class Protocol:
    """One kind of device. `transport`: how it is connected. `steps` name what it waits for, in order, once it is
    upgraded (or connected, where nothing is answered before the first message); the last name also stands for all later
    steps. `ping` is the frame of its ping; a pong frame always answers one."""

    transport: Transport = WEBSOCKET
    steps: tuple[str, ...] = ()
    ping: bytes = frames.client_frame(b"", frames.PING)

    def __init__(self, scenario: Scenario) -> None:
        if not 1 <= scenario.channels <= LAST_STEP - len(self.steps):
            raise ValueError(f"a device can have 1 to {LAST_STEP - len(self.steps)} channels")
        self.scenario = scenario

    def request(self, device: int) -> bytes:
        """What a device says first: its upgrade request."""
        return frames.upgrade_request(self.scenario.host, self.scenario.path)

    def resume(self, device: int, position: bytes) -> bytes:
        """What a subscriber says first that was there before, and wants what came behind this position."""
        raise NotImplementedError

    def opened(self, device: int, identity: bytes) -> Step:
        """Its request was accepted. `identity` is empty unless it was set up before."""
        return Step(b"", DONE)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        """A message came before the device is set up; None: it means nothing.

        Raises:
          PeerError: refused, or broken.
        """
        return None

    def received(self, device: int, payload: bytes) -> Received | None:
        """A message came to a device that is set up; None: it means nothing.

        Raises:
          PeerError: broken.
        """
        return None
