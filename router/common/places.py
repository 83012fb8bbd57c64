"""Where routers are reached from this host: over Unix sockets those that run on it, over TCP with CURVE all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq

from router.common import curve, logs
from router.common.cluster_settings import BEATS_A_LEASE, ClusterOptions, lease, split
from router.common.curve import ClusterKey
from router.common.directory import HostRow, Placement, Placements, Reader
from router.common.link_address import LinkError, address, peer_address
from router.common.options import Settings
from router.common.settings import Data

_HANDSHAKE_MS: Final = 3000
"""Until a connection has made its handshake: whoever only connects costs a descriptor for so long."""
_BACKLOG: Final = 1024
"""Workers of all hosts may come at once: where a router has moved."""

_Socket = zmq.Socket[bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a socket is connected to or bound. key: of the cluster; None: it is on this host. lease: s in which a cut
    connection is noticed."""

    address: str
    key: ClusterKey | None = None
    lease: float = 0.0

    def connect(self, socket: _Socket) -> None:
        """Connect a socket to it."""
        if self.key is not None:
            self._prepare(socket)
            curve.connect(socket, self.key)
        socket.connect(self.address)

    def bind(self, socket: _Socket) -> None:
        """Have a socket listen there, besides where it listens already.

        Raises: zmq.ZMQError.
        """
        if self.key is not None:
            self._prepare(socket)
            socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
            socket.setsockopt(zmq.BACKLOG, _BACKLOG)
            curve.serve(socket, self.key)
        socket.bind(self.address)

    def _prepare(self, socket: _Socket) -> None:
        """These options count for what is connected or bound from now on. A connection over which nothing comes, or
        nothing that is sent is acknowledged, for a lease is closed by both ends."""
        beat = self.lease / BEATS_A_LEASE
        socket.setsockopt(zmq.HEARTBEAT_IVL, int(beat * 1000))
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int((self.lease - beat) * 1000))
        socket.setsockopt(zmq.TCP_MAXRT, int(self.lease * 1000))
        socket.setsockopt(zmq.CONNECT_TIMEOUT, int(self.lease * 1000))
        socket.setsockopt(zmq.IPV6, int(_may_be_ipv6(self.address)))


class Places:
    """Of all routers. keys: of the cluster; none: there is only this host."""

    def __init__(
        self, folder: Path, options: ClusterOptions | None = None, keys: Iterable[ClusterKey] = (), lease: float = 0.0
    ) -> None:
        """folder: of the data."""
        self.folder = folder
        self._options = options
        keys = list(keys)
        self._served = keys[0] if keys else None
        self._keys: Mapping[str, ClusterKey] = curve.by_id(keys)
        self._lease = lease
        self._reader = Reader(folder) if keys else None
        self._placements = Placements()
        self.host = ""
        """ID of this host in a cluster."""
        self.hosts: list[HostRow] = []
        """Those that live, as the directory has them."""

    @classmethod
    def of(cls, settings: Settings) -> Places:
        """As the settings have it.

        Raises: ClusterKeyError, FileError.
        """
        folder, options = Path(settings.get(Data).dir), settings.get(ClusterOptions)
        return cls(folder, options, curve.load(settings), lease(settings)) if options.enabled else cls(folder)

    @property
    def move(self) -> bool:
        """Whether routers may move."""
        return self._reader is not None

    @property
    def keys(self) -> list[ClusterKey]:
        """Those with which other hosts are let in."""
        return list(self._keys.values())

    @property
    def known(self) -> list[Placement]:
        """Where routers are, as far as it is known."""
        return list(self._placements.by_number.values())

    def look(self) -> list[Placement]:
        """To be called a few times a second. Returns: what has changed."""
        if self._reader is None or (directory := self._reader.look()) is None:
            return []
        self.host = directory.host
        self.hosts = directory.hosts
        return self.heard(directory.placements)

    def heard(self, placements: Iterable[Placement]) -> list[Placement]:
        """A router has told where these are. Returns: what has changed."""
        return self._placements.merge(placements)

    def for_workers(self, number: int) -> Place | None:
        """Where workers of this host reach the router of this number; None: that is not known."""
        if self._reader is None:
            return Place(address(self.folder, number))
        one = self._placements.by_number.get(number)
        if one is None:
            return None
        return Place(address(self.folder, number)) if one.host == self.host else self._far(one, one.address)

    def for_routers(self, number: int) -> Place | None:
        """Where routers of this host reach it."""
        if self._reader is None:
            return Place(peer_address(self.folder, number))
        one = self._placements.by_number.get(number)
        if one is None:
            return None
        return Place(peer_address(self.folder, number)) if one.host == self.host else self._far(one, one.peers)

    def _far(self, one: Placement, where: str) -> Place | None:
        key = self._keys.get(one.key)
        if key is None:
            hint = "give all hosts the same cluster.key; during a rotation both, in either order"
            logs.limited("link.key_unknown", at="error", per=one.host, router=one.number, key=one.key, hint=hint)
            return None
        return Place(f"tcp://{where}", key, self._lease)

    def listening(self, number: int) -> tuple[Place, Place] | None:
        """Where the router of this number listens on this host, for workers and for routers of other hosts; None: there
        are no others."""
        if self._options is None or self._served is None:
            return None
        workers, routers = self._options.listens(number)
        return tuple(Place(f"tcp://{where}", self._served, self._lease) for where in (workers, routers))  # type: ignore[return-value]


class Listening:
    """Has a socket listen for other hosts. The port may be taken for a moment: by the process that this one replaces,
    which has not ended yet."""

    def __init__(self, socket: _Socket, place: Place | None) -> None:
        self._socket = socket
        self._place = place
        self.listen()

    def listen(self) -> None:
        """Try, if it does not listen yet; to be called a few times a second.

        Raises: LinkError if that is in vain.
        """
        if self._place is None:
            return
        try:
            self._place.bind(self._socket)
        except zmq.ZMQError as error:
            where = self._place.address.removeprefix("tcp://")
            if error.errno != zmq.EADDRINUSE:
                raise LinkError(f"cluster.bind: cannot listen at {where}: {str(error).lower()}") from None
            logs.limited("link.port_taken", at="warning", per=where, address=where)
        else:
            self._place = None


def _may_be_ipv6(address: str) -> bool:
    host = split(address.removeprefix("tcp://"))[0]
    return ":" in host or any(character.isalpha() for character in host)
