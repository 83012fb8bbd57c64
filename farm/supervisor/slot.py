"""A process that must run."""

from __future__ import annotations

import socket
from typing import Final

import trio

from farm.supervisor.children import Child, ForkServer

POLL_S: Final = 0.05
ROUTER_STOP_S: Final = 5.0
"""How long a router may take at its end to finish its work, at most."""


class Slot:
    """The place of one process: a router or a worker, known by its number among those of its kind.

    It must run as long as it is `placed` here, as it is from the start, but for the routers of a cluster.
    """

    def __init__(self, kind: str, number: int, listeners: list[socket.socket]) -> None:
        self.kind = kind
        self.number = number
        self.listeners = listeners
        self.child: Child | None = None
        self.fork_server: ForkServer | None = None  # where the next one comes from; None: from the farm's
        self.turn = trio.Lock()
        """Held while another process is put in its place."""
        self.served = 0
        """The pid that has been seen to serve."""
        self.restarts = 0
        self.placing = trio.Event()
        """Set while it is placed here."""
        self.placing.set()
        self.withdrawn = trio.Event()
        """Set while it is not."""

    @property
    def placed(self) -> bool:
        """Whether its process is to run on this host."""
        return self.placing.is_set()

    def place(self) -> None:
        """Its process is to run here from now on."""
        if not self.placed:
            self.placing.set()
            self.withdrawn = trio.Event()

    def withdraw(self) -> None:
        """No other process is to be started here, once the one that there is has ended."""
        if self.placing.is_set():
            self.placing = trio.Event()
            self.withdrawn.set()

    @property
    def name(self) -> str:
        """For logs and for `down` in the health answer."""
        return f"{self.kind}[{self.number}]"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.child is not None and not self.child.ended.is_set()

    def put(self, child: Child) -> None:
        """This process fills the slot from now on."""
        before, self.child = self.child, child
        if before is not None:
            before.relieved.set()
