"""A line of the log for a connection at its end: of a share of them, which is drawn when they are accepted.

Only of these anything is kept, and where the share is 0 none of this is there: `Output` is as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from farm.dialects import DeviceSession, Session
from farm.transports import Finder
from farm.worker.clock import Clock
from farm.worker.connection import CLOSING, OPEN, Connection
from farm.worker.output import Output
from farm.worker.shared_path import Undecided
from router.common import logs
from router.common.settings import Log

_DIALECTS: Final = "farm.dialects."
_NO_CODE: Final = 1005
"""A close frame without a code (RFC 6455 7.1.5)."""
_HTTP: Final = b"HTTP/1.1 "
_STATUS_DIGITS: Final = 3


class _Kept:
    """What is known of a connection so far."""

    __slots__ = ("address", "by", "code", "device", "dialect", "reason", "since")

    def __init__(self, address: str, since: float) -> None:
        self.address = address
        self.since = since
        self.dialect = self.device = self.by = self.reason = ""
        self.code = 0


class DeviceLog:
    """The connections that get a line. address_of: gives that of an open connection's client; "" if it is not known."""

    def __init__(self, share: float, level: str, clock: Clock, address_of: Callable[[int], str]) -> None:
        self._share = share
        self._level = level
        self._clock = clock
        self._address_of = address_of
        self._kept: dict[int, _Kept] = {}

    @classmethod
    def of(cls, options: Log, clock: Clock, address_of: Callable[[int], str]) -> DeviceLog | None:
        """None if no connection is to get one. At the level debug all get one."""
        if options.level == "debug":
            return cls(1.0, "debug", clock, address_of)
        return cls(options.devices, "info", clock, address_of) if options.devices else None

    def meeting(self, meet: Callable[[Connection], None]) -> Callable[[Connection], None]:
        """What is to be called with a new connection, in place of this."""

        def met(connection: Connection) -> None:
            if random.random() < self._share:
                self._kept[connection.fd] = _Kept(self._address_of(connection.fd), self._clock.now)
            meet(connection)

        return met

    def spoke(self, fd: int, session: Session) -> None:
        """The session of a connection ends."""
        if (kept := self._kept.get(fd)) is not None:
            kept.dialect = dialect_of(session)
            kept.device = session.key.hex() if isinstance(session, DeviceSession) else ""

    def ends(self, fd: int, by: str, code: int, reason: str) -> None:
        """Why a connection is about to end. What was said first counts. by: `server` or `peer`."""
        if (kept := self._kept.get(fd)) is not None and not kept.by:
            kept.by, kept.code, kept.reason = by, code, reason

    def located(self, fd: int) -> None:
        """It is about to be closed: where it came from is known now, if ever."""
        if (kept := self._kept.get(fd)) is not None:
            kept.address = self._address_of(fd) or kept.address

    def ended(self, fd: int) -> None:
        """It has been closed. Where nothing was said of that, the peer did it."""
        kept = self._kept.pop(fd, None)
        if kept is None:
            return
        if not kept.by:
            kept.by, kept.reason = "peer", "ended without a close"
        known = {name: value for name in ("dialect", "device", "code", "reason") if (value := getattr(kept, name))}
        seconds = round(self._clock.now - kept.since, 3)
        if self._level == "info":
            logs.event("device.ended", address=kept.address, seconds=seconds, by=kept.by, **known)
        else:
            logs.debug("device.ended", address=kept.address, seconds=seconds, by=kept.by, **known)


class LoggedOutput(Output):
    """The output of connections of which some get a line."""

    def __init__(self, log: DeviceLog, *parts: Any) -> None:
        super().__init__(*parts)
        self._log = log

    def close(self, connection: Connection, code: int, reason: str, before: list[bytes] | None = None) -> None:
        """As `Output.close`."""
        if connection.phase != CLOSING and not (connection.transport.once and connection.phase == OPEN):
            self._log.ends(connection.fd, "server", code, reason)
        super().close(connection, code, reason, before)

    def close_back(self, connection: Connection, payload: bytes) -> None:
        """As `Output.close_back`."""
        code = int.from_bytes(payload[:2], "big") if payload else _NO_CODE
        self._log.ends(connection.fd, "peer", code, payload[2:].decode())
        super().close_back(connection, payload)

    def finish(self, connection: Connection, last: bytes, finder: Finder | None = None, why: str = "") -> bool:
        """As `Output.finish`."""
        if connection.phase != CLOSING:
            if last.startswith(_HTTP):
                why = f"answered {int(last[len(_HTTP) : len(_HTTP) + _STATUS_DIGITS])}"
            if why:
                self._log.ends(connection.fd, "server", 0, why)
        return super().finish(connection, last, finder)

    def release(self, connection: Connection, why: str = "") -> None:
        """As `Output.release`."""
        fd = connection.fd
        if why:
            self._log.ends(fd, "server", 0, why)
        self._log.located(fd)
        if connection.session is not None:
            self._log.spoke(fd, connection.session)
        try:
            super().release(connection, why)
        finally:
            self._log.ended(fd)  # else the next connection with this descriptor had its line

    def _too_slow(self, connection: Connection) -> None:
        self._log.ends(connection.fd, "server", 0, "does not read")
        super()._too_slow(connection)

    def _forget(self, connection: Connection) -> None:
        if connection.session is not None:
            self._log.spoke(connection.fd, connection.session)
        super()._forget(connection)


def dialect_of(session: Session) -> str:
    """The name of the dialect that a session is of: that of its module or package in `farm.dialects`; "" for one that
    has not said yet which it speaks."""
    if isinstance(session, Undecided):
        return ""
    module = type(session).__module__
    return module.removeprefix(_DIALECTS).partition(".")[0] if module.startswith(_DIALECTS) else module
