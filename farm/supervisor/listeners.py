"""Every listening socket of the farm, and the settings as they are once those are open."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from farm.supervisor.activation import GivenSockets
from router.common import logs
from router.common.errors import MendableError
from router.common.listener import base_url, open_listener
from router.common.options import Settings
from router.common.settings import EndpointOptions, Listen
from router.common.tls_settings import TlsOptions

_DEVICE_PORT: Final = "listen.device_port"
_ROUTER_PORT: Final = "listen.router_port"
_ADMIN_PORT: Final = "listen.admin_port"
_ADMIN_BACKLOG: Final = 128
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Listeners:
    """Opened by the supervisor, and kept for as long as it runs."""

    def __init__(
        self,
        options: Listen,
        workers: int,
        routers: int,
        further: Iterable[tuple[str, int]] = (),
        routers_move: bool = False,
        given: GivenSockets | None = None,
    ) -> None:
        """further: ports for devices besides the device port, each with the name of its option. routers_move: to other
        hosts and back. Then those that are here accept from one listener, so that one which goes leaves no connection
        behind in a queue of its own. given: take the place of those that would be opened here.

        Raises: ListenError, ActivationError.
        """
        given = given or GivenSockets()
        ports = ((_DEVICE_PORT, options.device_port), *further)
        given.check_names([_DEVICE_PORT, _ROUTER_PORT, _ADMIN_PORT, *(option for option, _ in ports[1:])])
        if routers_move:  # whoever else holds it would keep connections waiting here while no router is
            given.refuse(_ROUTER_PORT, "in a cluster the router port is open only while a router is here: leave it out")
        self.devices: list[list[socket.socket]] = [[] for _ in range(workers)]
        """Of each worker, the device port's first."""
        self.routers: list[list[socket.socket]] = []
        """Of each router: one. Where they move, all have the same list, which is empty while there is none here."""
        try:
            for option, port in ports:
                opened = _shared(options, port, option, workers, given)
                for listeners, listener in zip(self.devices, opened, strict=True):
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    listeners.append(listener)
            number = 1 if routers_move else routers
            for listener in _shared(options, options.router_port, _ROUTER_PORT, number, given):
                self.routers.append([listener])
            self._router_port = self.routers[0][0].getsockname()[1]
            if routers_move:
                self.routers *= routers
            host, port = options.admin_host, options.admin_port
            (self.admin,) = _given(given, _ADMIN_PORT, host, port, 1, _ADMIN_BACKLOG) or (
                open_listener(host, port, _ADMIN_BACKLOG, _ADMIN_PORT),
            )
        except MendableError:
            for listener in chain(*self.devices, *self.routers):
                listener.close()
            raise

    def close(self) -> None:
        """Close what is still open."""
        for listener in (*chain(*self.devices, *self.routers), self.admin):
            listener.close()

    def shut_routers(self) -> None:
        """Of routers that move: none is here any more, and no connection of an app server may wait for one."""
        for listener in self.routers[0]:
            listener.close()
        self.routers[0].clear()

    def open_routers(self, options: Listen) -> None:
        """Of routers that move: there is one here again. options: with the port that was opened at first.

        Raises: ListenError.
        """
        if not self.routers[0]:
            self.routers[0].append(open_listener(options.host, options.router_port, options.backlog, _ROUTER_PORT))

    def with_ports(self, settings: Settings) -> Settings:
        """The settings with the ports that were really opened, and the endpoints' base."""
        options = settings.get(Listen)
        settings = settings.replace(
            Listen,
            device_port=self.devices[0][0].getsockname()[1],
            router_port=self._router_port,
            admin_port=self.admin.getsockname()[1],
        )
        if not settings.get(EndpointOptions).url:
            url = base_url(options.host, settings.get(Listen).router_port, settings.get(TlsOptions).for_app_servers)
            if options.host not in _LOOPBACK:
                logs.warning("endpoint.url_not_set", endpoints=url, hint="set endpoint.url to the public base")
            settings = settings.replace(EndpointOptions, url=url)
        return settings


def _shared(options: Listen, port: int, option: str, number: int, given: GivenSockets) -> Iterator[socket.socket]:
    """So many listeners of one port, among which the kernel divides what comes.

    Raises: ListenError, ActivationError.
    """
    if found := _given(given, option, options.host, port, number, options.backlog):
        yield from found
        return
    several = number > 1
    if several:  # SO_REUSEPORT would let us share the port with another program: check first that it is free
        open_listener(options.host, port, options.backlog, option).close()
    for _ in range(number):
        listener = open_listener(options.host, port, options.backlog, option, reuse_port=several)
        port = listener.getsockname()[1]
        yield listener


def _given(given: GivenSockets, option: str, host: str, port: int, number: int, backlog: int) -> list[socket.socket]:
    """Those that are given for a port, with our backlog: a worker that died while it was late left a shorter one."""
    found = given.take(option, host, port, number)
    for listener in found:
        listener.listen(backlog)
    return found
