"""Listening sockets that a service manager has opened and hands over: systemd's sd_listen_fds(3), known by their names.

The name is that of the setting whose port it is (`FileDescriptorName=listen.device_port`). The settings stay what
counts: a socket that listens elsewhere than they say is an error. A port that more than one process serves needs a
socket for each of them (`ReusePort=yes`), as where the farm opens them itself; it cannot add its own to those that are
there, because the kernel lets only one user's sockets share a port, and systemd's are root's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, MutableMapping
from typing import Final

from router.common.errors import MendableError
from router.common.listener import family_of, is_dual

VARIABLES: Final = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Meant for the supervisor alone: no process of the farm inherits them, nor a descriptor that is not its own."""
FIRST: Final = 3
"""The first of the descriptors, by sd_listen_fds(3)."""
MOST: Final = 4096
"""A worker and a port are one each; beyond this it is no number of sockets."""


class ActivationError(MendableError):
    """What the service manager hands over cannot be used; the text says why and what to do, in one line."""


def names(environ: Mapping[str, str], pid: int) -> list[str]:
    """Of the descriptors from `FIRST` on that are for the process `pid`. Pure. Raises: ActivationError."""
    if environ.get("LISTEN_PID", "") != str(pid) or environ.get("LISTEN_FDS", "0") == "0":
        return []
    text = environ["LISTEN_FDS"]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) and int(text) <= MOST):
        raise ActivationError(f"LISTEN_FDS is {text!r}: expected a number of sockets, {MOST} at most")
    found = environ.get("LISTEN_FDNAMES", "").split(":")
    if len(found) != int(text):
        raise ActivationError(
            f"LISTEN_FDNAMES has {len(found)} names and LISTEN_FDS {int(text)} sockets: each needs one "
            "(FileDescriptorName=)"
        )
    return found


class GivenSockets:
    """Those that this process was started with, until they are taken."""

    def __init__(self, environ: MutableMapping[str, str] | None = None, first: int = FIRST) -> None:
        """environ: that of this process; what is about its descriptors is taken out. None: there are no sockets.

        Raises: ActivationError.
        """
        self._by_name: dict[str, list[socket.socket]] = {}
        variables = {name: environ.pop(name) for name in VARIABLES if name in environ} if environ is not None else {}
        for fd, name in enumerate(names(variables, os.getpid()), first):
            self._by_name.setdefault(name, []).append(_listening(fd, name))

    def take(self, option: str, host: str, port: int, number: int) -> list[socket.socket]:
        """The sockets of this setting, one for each of `number` processes; none, if none was given.

        host, port: where they have to listen; port 0: anywhere, but all on one. Raises: ActivationError.
        """
        found = self._by_name.get(option, [])
        if found and len(found) != number:
            processes = "process serves" if number == 1 else "processes serve"
            raise ActivationError(
                f"{option}: {_counted(found)} given, and {number} {processes} it: "
                "the unit needs as many ListenStream= (several: with ReusePort=yes)"
            )
        for each in found:
            _check(option, each, host, port)
            port = each.getsockname()[1]
        return self._by_name.pop(option, [])

    def check_names(self, known: Collection[str]) -> None:
        """Raises: ActivationError if there is one that is none of these settings."""
        for name in self._by_name:
            if name not in known:
                raise ActivationError(
                    f"a socket is given with the name {name!r}, which is no port of this farm: "
                    f"FileDescriptorName= has to be one of {', '.join(known)}"
                )

    def refuse(self, option: str, why: str) -> None:
        """Raises: ActivationError if there is one of this setting."""
        if option in self._by_name:
            raise ActivationError(f"{option}: a socket is given, and {why}")


def _listening(fd: int, name: str) -> socket.socket:
    """The descriptor as a socket that no other process inherits."""
    try:
        os.set_inheritable(fd, False)
        found = socket.socket(fileno=fd)
        listens = (
            found.family in (socket.AF_INET, socket.AF_INET6)
            and found.type == socket.SOCK_STREAM
            and found.proto == socket.IPPROTO_TCP
            and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        )
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ActivationError(f"{name}: descriptor {fd} cannot be used: {why}") from None
    if not listens:
        raise ActivationError(
            f"{name}: descriptor {fd} is no listening TCP socket: use ListenStream=ADDRESS:PORT, and no Accept=yes"
        )
    return found


def _check(option: str, found: socket.socket, host: str, port: int) -> None:
    """Whether it listens where the settings say. Raises: ActivationError."""
    family = family_of(host)
    try:
        wanted = socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
    except OSError as error:
        raise ActivationError(f"{option}: {host}: {(error.strerror or str(error)).lower()}") from None
    here = found.getsockname()
    if found.family != family or here[0] != wanted[0] or (port and here[1] != port):
        raise ActivationError(
            f"{option}: the socket that is given listens on {_place(*here[:2])}, and the settings say "
            f"{_place(str(wanted[0]), port)}: change either"
        )
    if is_dual(host) and found.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise ActivationError(
            f"{option}: the socket that is given is for IPv6 alone, and {host} is every address: BindIPv6Only=both"
        )


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _counted(found: list[socket.socket]) -> str:
    return "one socket is" if len(found) == 1 else f"{len(found)} sockets are"
