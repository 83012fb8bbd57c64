"""What stands between the device sockets and their requests, as the settings want it: TLS, and proxies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from router.common.client_address import Networks
from router.common.openings import Openings
from router.common.options import Settings
from router.common.settings import Listen
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import PLAIN, TlsWire, Wire

_NONE: Final = Networks(())


@dataclass(frozen=True, slots=True)
class Edge:
    """The defaults: plain connections, straight from the clients."""

    tls: TlsWire | None = None
    """The wire of all connections; None: no TLS is spoken, and theirs is the plain one."""
    openings: Openings | None = None
    """None: every connection begins with its request."""
    forwarding: Networks = _NONE
    """Proxies whose headers say where a request comes from."""
    max_relayed: int = 0

    @property
    def wire(self) -> Wire:
        """What reads and writes."""
        return PLAIN if self.tls is None else self.tls

    @classmethod
    def of(cls, settings: Settings, contexts: Contexts | None) -> Edge:
        """That of these settings. contexts: None without TLS."""
        options, listen = settings.get(TlsOptions), settings.get(Listen)
        tls = TlsWire(contexts.front) if contexts is not None and options.for_devices else None
        return cls(tls, Openings.of(listen, options, tls), Networks(listen.forwarded_from), options.max_relayed)


PLAIN_EDGE: Final = Edge()
