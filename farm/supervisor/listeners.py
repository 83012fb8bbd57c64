"""Every listening socket of the farm, and the settings as they are once those are open."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from router.common import logs
from router.common.listener import ListenError, base_url, open_listener
from router.common.options import Settings
from router.common.settings import EndpointOptions, Listen
from router.common.tls_settings import TlsOptions

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
    ) -> None:
        """further: ports for devices besides the device port, each with the name of its option. routers_move: to other
        hosts and back. Then those that are here accept from one listener, so that one which goes leaves no connection
        behind in a queue of its own.

        Raises: ListenError.
        """
        self.devices: list[list[socket.socket]] = [[] for _ in range(workers)]
        """Of each worker, the device port's first."""
        self.routers: list[list[socket.socket]] = []
        """Of each router: one. Where they move, all have the same list, which is empty while there is none here."""
        try:
            for option, port in (("listen.device_port", options.device_port), *further):
                for listeners, listener in zip(self.devices, _shared(options, port, option, workers), strict=True):
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    listeners.append(listener)
            option = "listen.router_port"
            for listener in _shared(options, options.router_port, option, 1 if routers_move else routers):
                self.routers.append([listener])
            self._router_port = self.routers[0][0].getsockname()[1]
            if routers_move:
                self.routers *= routers
            self.admin = open_listener(options.admin_host, options.admin_port, 128, "listen.admin_port")
        except ListenError:
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
            self.routers[0].append(
                open_listener(options.host, options.router_port, options.backlog, "listen.router_port")
            )

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


def _shared(options: Listen, port: int, option: str, number: int) -> Iterator[socket.socket]:
    """So many listeners of one port, among which the kernel divides what comes. Raises: ListenError."""
    several = number > 1
    if several:  # SO_REUSEPORT would let us share the port with another program: check first that it is free
        open_listener(options.host, port, options.backlog, option).close()
    for _ in range(number):
        listener = open_listener(options.host, port, options.backlog, option, reuse_port=several)
        port = listener.getsockname()[1]
        yield listener
