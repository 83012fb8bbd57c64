"""Non-blocking sockets by their descriptors, for the load processes: a process holds thousands, and an
object each costs memory."""

import errno
import ipaddress
import os
import select
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

IP_BIND_ADDRESS_NO_PORT: Final = 24
"""From <linux/in.h>: the port is chosen at connect, so that it needs to be free only towards that destination."""

CONNECTIONS_A_SOURCE: Final = 4_000
"""connect() searches for a port that is free towards the destination, and the search gets long once half of the
28,232 of Linux's default range are taken: 18,000 connects from one source took about 180 microseconds each, from
several sources about 30."""

MOST_SOURCES: Final = 65_536

_HARD_CLOSE: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger {on, 0 seconds}


class Address(NamedTuple):
    """A resolved TCP address."""

    family: int
    host: str
    port: int


def resolve(host: str, port: int) -> Address:
    """The first address of a host; raises OSError if it has none."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return Address(int(family), str(address[0]), port)


def sources_in(text: str) -> list[str]:
    """The local addresses that one `--source` names: an address, or a network such as 10.0.0.16/28.

    Raises:
      ValueError: neither, or a network of more than 65,536 addresses.
    """
    if "/" not in text:
        return [str(ipaddress.ip_address(text))]
    network = ipaddress.ip_network(text)
    if network.num_addresses > MOST_SOURCES:
        raise ValueError(f"{text} has more than {MOST_SOURCES:,} addresses")
    return [str(host) for host in network.hosts()]


def check_sources(sources: Sequence[str], address: Address) -> None:
    """Whether connections to this address can come from each of them.

    Raises:
      OSError: not so; `filename` is the address.
    """
    for source in sources:
        with socket.socket(address.family, socket.SOCK_STREAM) as sock:
            try:
                sock.bind((source, 0))
            except OSError as error:
                raise OSError(error.errno, error.strerror, source) from None


def source_of(index: int, address: Address, sources: Sequence[str] = ()) -> str | None:
    """The source address of the connection with this number; None leaves it to the kernel.

    `sources` take turns. Without any, towards loopback the further blocks of 4,000 come from 127.1.0.1, 127.1.0.2 and
    so on.
    """
    if sources:
        return sources[index % len(sources)]
    block = index // CONNECTIONS_A_SOURCE - 1
    if block < 0 or address.family != socket.AF_INET or not address.host.startswith("127."):
        return None
    return f"127.1.{block // 250}.{1 + block % 250}"


def open_connection(address: Address, source: str | None = None) -> int:
    """Begin to connect; the descriptor takes data when it is writable.

    Raises:
      OSError: no descriptor, no port, or refused at once.
    """
    sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        code = sock.connect_ex((address.host, address.port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except OSError:
        sock.close()
        raise
    return sock.detach()


def reset_on_close(descriptor: int, family: int) -> None:
    """Let the close be a reset: a hundred thousand ports then do not stay in TIME_WAIT for a minute."""
    sock = socket.socket(family, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD_CLOSE)
    finally:
        sock.detach()


def error_name(error: OSError) -> str:
    """`ECONNRESET` rather than a sentence: it is a row in a table of failures."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


class Outbox:
    """Writes to descriptors of one epoll; what the kernel does not take waits until they are writable."""

    IN: Final = select.EPOLLIN
    BOTH: Final = select.EPOLLIN | select.EPOLLOUT

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._waiting: dict[int, bytes] = {}

    def send(self, descriptor: int, data: bytes) -> None:
        """Write, or keep what can't be written; raises OSError when the connection is broken."""
        waiting = self._waiting
        if waiting and descriptor in waiting:
            waiting[descriptor] += data
            return
        try:
            written = os.write(descriptor, data)
        except BlockingIOError:
            written = 0
        if written < len(data):
            waiting[descriptor] = data[written:]
            self._epoll.modify(descriptor, self.BOTH)

    def flush(self, descriptor: int) -> None:
        """Write what waits; call it when the descriptor is writable. Raises OSError when the connection is broken."""
        data = self._waiting.pop(descriptor, b"")
        self._epoll.modify(descriptor, self.IN)
        if data:
            self.send(descriptor, data)

    def forget(self, descriptor: int) -> None:
        """The descriptor is about to be closed."""
        self._waiting.pop(descriptor, None)
