"""The settings of TLS on the device port and the router port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from router.common import option_texts as texts
from router.common.options import Section, option

AUTO: Final = "auto"
ON: Final = "on"
_WHERE: Final = (AUTO, ON, "off")


@dataclass(frozen=True)
class TlsOptions(Section):
    SECTION: ClassVar[str] = "tls"
    HELP: ClassVar[str] = "TLS (1.2 and 1.3) on the device port and the router port."

    certificate: tuple[str, ...] = option(
        (),
        "certificates, each with the chain that leads to its root; the first is shown where no other has the name "
        "that a client asks for (SNI). Two with the same names may have keys of different kinds (ECDSA, RSA)",
        expects="a list of paths of files in PEM format",
        check=texts.path,
    )
    key: tuple[str, ...] = option(
        (),
        "their private keys, without a passphrase, in the same order",
        expects="a list of paths of files in PEM format",
        check=texts.path,
    )
    device: str = option("auto", "whether devices connect with TLS; auto: if there is a certificate", choices=_WHERE)
    router: str = option(
        "auto", "whether app servers connect with TLS; auto: if there is a certificate", choices=_WHERE
    )
    watch: float = option(
        10.0,
        "time between looks at these files: what has changed is used for new connections; 0: only after a reload",
        unit="s",
        ge=0,
    )
    handshakes_a_turn: int = option(
        16,
        "steps of handshakes that a process does before it serves what is open; one takes about 0.5 ms",
        unit="steps",
        ge=1,
    )
    max_handshakes: int = option(
        1000,
        "handshakes that may be going on in a process, 44 to 150 KiB each; beyond, the one that began first is closed",
        unit="handshakes",
        ge=1,
    )
    max_relayed: int = option(
        256,
        "connections of app servers with TLS that came to the device port, for each worker, which relays them to a "
        "router; beyond, they are answered 503",
        unit="connections",
        ge=0,
    )

    @property
    def for_devices(self) -> bool:
        """Whether the device port speaks TLS."""
        return self.device == ON or (self.device == AUTO and bool(self.certificate))

    @property
    def for_app_servers(self) -> bool:
        """Whether the router port does."""
        return self.router == ON or (self.router == AUTO and bool(self.certificate))
