"""Where TLS ends that devices connect with: in the farm, or in HAProxy in front of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.interrupt import Interrupt
from bench.machine import leftovers
from bench.machine.ports import free_ports
from bench.peers.base import NotInstalledError, libraries, program
from bench.server_process import listens, spawn, stop_group, wait_until_up

FARM: Final = "tls"
HAPROXY: Final = "haproxy"
_SPARE_CONNECTIONS: Final = 500
_CONFIGURATION: Final = """\
global
    maxconn {connections}
    # as many threads as the farm behind it has workers
    nbthread {threads}
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode tcp
    timeout connect 10s
    timeout client 3700s
    timeout server 3700s
listen devices
    bind 127.0.0.1:{port} backlog 4096 ssl crt {pem} alpn http/1.1
    server farm {farm} send-proxy-v2
"""


@dataclass(frozen=True, slots=True)
class Front:
    """What ends TLS. `where`: FARM or HAPROXY; `pem`: the file with the certificate and its key. HAProxy's own files
    are made beside it."""

    where: str
    pem: Path

    @property
    def settings(self) -> tuple[str, ...]:
        """Of the farm."""
        if self.where == HAPROXY:
            return ("listen.proxy_from=127.0.0.1",)
        return (f"tls.certificate={self.pem}", f"tls.key={self.pem}", "tls.router=off")

    def check(self) -> None:
        """Raises: BenchError: there is no HAProxy, and it is needed."""
        if self.where == HAPROXY:
            _haproxy()

    @contextmanager
    def before(self, farm: Farm, devices: int, threads: int, interrupt: Interrupt) -> Iterator[Farm]:
        """The farm as devices reach it.

        Raises:
          BenchError: there is no HAProxy, or it does not start.
        """
        if self.where == FARM:
            yield farm
            return
        haproxy = _haproxy()
        (port,) = free_ports(1)
        file = self.pem.with_name("haproxy.cfg")
        file.write_text(
            _CONFIGURATION.format(
                connections=devices + _SPARE_CONNECTIONS,
                threads=threads,
                port=port,
                pem=self.pem,
                farm=f"{farm.address.host}:{farm.address.port}",
            )
        )
        log = self.pem.with_name("haproxy.log")
        process = spawn([haproxy, "-db", "-f", str(file)], log, libraries(haproxy))
        try:
            wait_until_up("HAProxy", lambda: listens(port), process, log, interrupt)
            yield replace(farm, address=farm.address._replace(port=port), proxy=process.pid)
        finally:
            stop_group(process)


def _haproxy() -> str:
    """Its path. Raises: BenchError."""
    try:
        return program("haproxy")
    except NotInstalledError as error:
        raise BenchError(f"{error}: apt-get install haproxy") from None


@contextmanager
def certificate() -> Iterator[Path]:
    """A file with a new key (P-256) and a certificate for it, for the time of the block."""
    from cryptography import x509  # which only these runs need
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with tempfile.TemporaryDirectory(prefix=leftovers.name("")) as folder:
        pem = Path(folder, "push.pem")
        pem.write_bytes(built.public_bytes(encoding) + private)
        yield pem
