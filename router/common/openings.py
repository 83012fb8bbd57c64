"""What comes before HTTP on some connections: a header of the PROXY protocol, and then a TLS handshake.

A connection is here from accept until both are done, and has no other trace here then. Its deadline is that of its
first request, and is looked after by its port.
"""

from __future__ import annotations

import socket
import sys
from typing import Final, NamedTuple

from router.common.client_address import Networks
from router.common.proxy_protocol import MAX_BYTES, ProxyError, parse_proxy_header
from router.common.settings import Listen
from router.common.tls_settings import TlsOptions
from router.common.wires import HandshakeFailed, TlsWire

PROXY: Final = "proxy"
TLS: Final = "tls"


class OpeningFailed(Exception):
    """The connection is to be closed. Its text is for the log.

    step: PROXY or TLS. plain_http: the peer has sent plain HTTP where TLS is spoken, and may be answered so. silent: it
    has left without a byte, as a balancer does that only looks whether the port is open: that is no failure. address:
    the client's, as `Opening` has it.
    """

    def __init__(
        self, step: str, why: str, plain_http: bool = False, silent: bool = False, address: str | None = None
    ) -> None:
        super().__init__(why)
        self.step = step
        self.plain_http = plain_http
        self.silent = silent
        self.address = address


class Opening(NamedTuple):
    """A connection that may begin."""

    data: bytes
    """What has come already."""
    address: str | None
    """The client's, where the proxy's is not; None: that of the peer counts."""


class _Step(NamedTuple):
    """What is awaited."""

    header: bytes | None
    """Of the PROXY protocol: the part that has come; None: none is due, or not any more."""
    tls: bool
    address: str | None
    begun: bool = False
    """Whether anything has come of what is awaited."""


class Openings:
    """The connections of a process that have not begun yet."""

    def __init__(
        self, proxies: Networks, wire: TlsWire | None, handshakes_a_turn: int, max_handshakes: int = sys.maxsize
    ) -> None:
        """proxies: of their connections a header of the PROXY protocol is expected. wire: None without TLS.
        max_handshakes: that may be going on."""
        self._proxies = proxies
        self._wire = wire
        self._most = handshakes_a_turn
        self._left = handshakes_a_turn
        self.behind = False
        """Whether there was more to do in the last turn than may be: then it is no time for more connections."""
        self._steps: dict[int, _Step] = {}
        self._max_handshakes = max_handshakes
        self._going_on: dict[int, None] = {}
        """Handshakes of which something has come, in the order in which that was."""

    @classmethod
    def of(cls, listen: Listen, tls: TlsOptions, wire: TlsWire | None) -> Openings | None:
        """Those of a port with these settings; None: every connection begins with HTTP. wire: None without TLS."""
        proxies = Networks(listen.proxy_from)
        if wire is None and not proxies:
            return None
        return cls(proxies, wire, tls.handshakes_a_turn, tls.max_handshakes)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._steps)

    def __contains__(self, fd: object) -> bool:
        return fd in self._steps

    def begin(self, fd: int, address: str, tls: bool) -> bool:
        """A connection was accepted. address: of its peer, as `client_address` gives it. tls: whether its listener
        speaks TLS. Returns: whether it begins here; otherwise with HTTP, at once."""
        proxied = address in self._proxies
        if not proxied and not tls:
            return False
        self._steps[fd] = _Step(b"" if proxied else None, tls, None)
        if tls and not proxied:
            self._begin_tls(fd)
        return True

    def _begin_tls(self, fd: int) -> None:
        assert self._wire is not None
        self._wire.begin(fd)

    def begin_turn(self) -> None:
        """Steps of handshakes may be done again."""
        self.behind = self._left < 0
        self._left = self._most

    def go_on(self, fd: int) -> Opening | None:
        """Something has come on one of these. Returns: what it begins with, and it is not here any more; None: it
        stays, and epoll will report it.

        Raises: OpeningFailed.
        """
        step = self._steps[fd]
        if step.header is not None:
            step = self._steps[fd] = self._proxy_header(fd, step)
            if step.header is not None:
                return None
            if step.tls:
                self._begin_tls(fd)
                return None  # if more is there already, that is reported
        if not step.tls:
            del self._steps[fd]
            return Opening(b"", step.address)
        self._left -= 1
        if self._left < 0:
            return None
        assert self._wire is not None
        try:
            data = self._wire.handshake(fd)
        except BlockingIOError:
            self._left += not self._wire.answered
            if not step.begun:
                self._steps[fd] = step._replace(begun=True)
                self._going_on[fd] = None
            return None
        except HandshakeFailed as error:
            silent = error.ended and not step.begun
            raise OpeningFailed(TLS, str(error), error.plain_http, silent, step.address) from None
        self.forget(fd)
        return Opening(data, step.address)

    @property
    def excess(self) -> int | None:
        """The handshake that has been going on for longest, if more of them are than may be: it is to be closed. An
        honest one takes a few round trips; one that is never finished has up to 150 KiB here."""
        return next(iter(self._going_on)) if len(self._going_on) > self._max_handshakes else None

    def named(self, fd: int) -> str | None:
        """The client of one of these, once a proxy has named it."""
        return self._steps[fd].address

    def forget(self, fd: int) -> None:
        """A connection was closed; it need not be one of these."""
        self._steps.pop(fd, None)
        self._going_on.pop(fd, None)

    def _proxy_header(self, fd: int, step: _Step) -> _Step:
        """Read a header, or what has come of it, and nothing that is behind it. Raises: OpeningFailed."""
        assert step.header is not None
        shell = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
        try:
            data = shell.recv(MAX_BYTES, socket.MSG_PEEK)
            if not data:
                raise OpeningFailed(PROXY, "it has ended before its PROXY header", silent=not step.begun)
            header = parse_proxy_header(step.header + data)
            if header is None:
                shell.recv(len(data))
                return step._replace(header=step.header + data, begun=True)
            shell.recv(header.size - len(step.header))
            return step._replace(header=None, address=header.address, begun=False)
        except BlockingIOError:
            return step
        except OSError as error:
            raise OpeningFailed(PROXY, error.strerror or str(error), silent=not step.begun) from None
        except ProxyError as error:
            raise OpeningFailed(PROXY, str(error)) from None
        finally:
            shell.detach()
