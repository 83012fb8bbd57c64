"""What the bench has to know of a dialect of the farm beside how its devices speak. A dialect states it in its module
of `bench.load.protocols`; nothing else in the bench names one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Signer(ABC):
    """An app server's key. `public`: as devices register it."""

    public: str

    @abstractmethod
    def authorization(self, origin: str) -> str:
        """The Authorization header's value for pushes to this origin (`http://host:port`), signed now."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect in which app servers push to single devices.

    `name`: also that of the devices' protocol; `wire`: of the push port, and `batch_wire` where one request may carry
    several pushes. `set_up`: what a device does until it is set up, and `push`: how an app server pushes, and what the
    answer means, for a reader. `payload`: bytes of data that a push carries if no option gives another size,
    `most_payload`: the farm's limit and its setting, `least`: with fewer a device can't tell which push it is.
    `ping_seconds`: a farm closes devices that ping more often, by the setting `ping_setting`. `keeps_all`: every
    message is delivered, not only the newest of a channel. `signer`: makes the key that devices register with, None:
    they register without. `reference`: what is spoken if nothing else is asked for, and what others are compared with.
    """

    name: str
    title: str
    wire: str
    set_up: str
    push: str
    most_payload: str
    ping_seconds: float
    ping_setting: str
    batch_wire: str = ""
    payload: int = 0
    least: int = 0
    keeps_all: bool = False
    signer: Callable[[], Signer] | None = None
    reference: bool = False


class Events(NamedTuple):
    """Where the events of a run go. `arguments`: of the subscribers' protocol; `path`: what is posted to, where
    `{channel}` stands for a channel's number; `authorization`: for the wire."""

    arguments: dict[str, Any]
    path: str
    authorization: str = ""


class FanOut(ABC):
    """How a dialect sends one event to many subscribers. `name`: also that of the subscribers' protocol. `set_up`: what
    a subscriber does until it is set up, for a reader. `most_payload`: the setting that limits an event.
    `apps_setting`: of the file that `--apps` names; empty: there is none. `modes`: in how many ways a subscriber can be
    connected, the usual one first, if there are several: the protocol's argument `mode`. `ports`: for the modes that
    have a port of their own, the setting that has it. `replays`: subscribers go on from the last event that they have
    (`Protocol.resume`). `reference`: what is spoken if nothing else is asked for."""

    name: str
    title: str
    wire: str
    set_up: str
    most_payload: str
    apps_setting: str = ""
    modes: tuple[str, ...] = ()
    ports: Mapping[str, str] = {}
    replays: bool = False
    reference: bool = False

    @abstractmethod
    def settings(self, folder: Path, stored: int = 0) -> tuple[str, ...]:
        """What a farm that is started for the run is set to, which keeps so many events of each channel if `stored` is
        not 0; files that it needs are written to the folder."""

    @abstractmethod
    def events(self, prefix: str, apps: str = "") -> Events:
        """To channels whose names begin with this prefix. `apps`: the file of a farm that runs; empty: the farm was
        started with `settings`, or needs none.

        Raises:
          ValueError: the file has nothing that can be used; the text says why.
        """
