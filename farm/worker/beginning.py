"""What becomes of connections before their first request: a PROXY header and a TLS handshake are dealt with."""

from __future__ import annotations

from collections.abc import Mapping

from farm.transports.request import Refusal
from farm.worker.address_limits import AddressLimits
from farm.worker.addresses import Addresses
from farm.worker.connection import Connection
from farm.worker.inbound import Inbound
from farm.worker.interest import Interest
from farm.worker.output import Output
from router.common import logs
from router.common.metrics import WorkerCounters
from router.common.openings import PROXY, OpeningFailed, Openings
from router.common.poller import WRITE
from router.common.refusals import PLAIN_HTTP
from router.common.wires import TlsWire


class Beginning:
    """Goes on with the openings of a worker, and hands what comes behind them to `inbound`."""

    def __init__(
        self,
        connections: Mapping[int, Connection],
        openings: Openings,
        tls: TlsWire | None,
        addresses: Addresses,
        limits: AddressLimits | None,
        interest: Interest,
        output: Output,
        inbound: Inbound,
        counters: WorkerCounters,
    ) -> None:
        """tls: the wire, where it speaks TLS. limits: None if addresses have none."""
        self._connections = connections
        self._openings = openings
        self._tls = tls
        self._addresses = addresses
        self._limits = limits
        self._watch = interest.watch
        self._output = output
        self._inbound = inbound
        self._counters = counters
        inbound.opening = self.go_on

    def go_on(self, connection: Connection) -> None:
        """Something has come on a connection that has not begun."""
        fd = connection.fd
        try:
            opening = self._openings.go_on(fd)
        except OpeningFailed as failed:
            self._failed(connection, failed)
            return
        if (oldest := self._openings.excess) is not None:
            self._give_up(self._connections[oldest])
        tls = self._tls
        if tls is not None and tls.holds(fd) and connection.out is None:  # the kernel has not taken it all
            connection.out = bytearray()
            self._watch(connection, connection.mask | WRITE)
        named = self._openings.named(fd) if opening is None else opening.address
        if named is not None and not self._addresses.differs(fd):
            self._addresses.proxied(fd, named)
            # Before a TLS handshake an answer would cost too much.
            if self._limits is not None and not self._limits.arrived(fd, named, opening is not None):
                self._output.drop(connection, "a limit of its address")
                return
        if opening is not None and opening.data:
            self._inbound.handshake(connection, opening.data)

    def _give_up(self, connection: Connection) -> None:
        self._counters.handshakes_failed += 1
        logs.limited("tls.too_many_handshakes", hint="tls.max_handshakes")
        self._output.drop(connection, "too many TLS handshakes at once")

    def _failed(self, connection: Connection, failed: OpeningFailed) -> None:
        if failed.silent:
            self._output.drop(connection)
            return
        address = self._addresses.of(connection.fd)
        if failed.step == PROXY:
            self._counters.proxy_refused += 1
            logs.limited("device.proxy_refused", address=address, why=str(failed), hint="listen.proxy_from")
            self._output.drop(connection, str(failed))
            return
        self._counters.handshakes_failed += 1
        logs.limited("device.handshake_failed", at="debug", address=address, why=str(failed))
        self._openings.forget(connection.fd)
        refusal = Refusal.of(PLAIN_HTTP)
        # The alert that says why is out: what else has come is read and thrown away, or it might not reach the client.
        last = connection.transport.refusal(refusal, None) if failed.plain_http else b""
        self._output.finish(connection, last, why=f"TLS handshake: {failed}")
