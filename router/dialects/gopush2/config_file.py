"""gopush2's configuration file, as settings of a farm: every option of its first version, with ports of their own, and
of its last, whose addresses hold the ports. As in Go, the case of a name does not matter, and null counts as not
given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from router.common.errors import MendableError
from router.common.files import FileError, read_at_most
from router.common.settings import StoreOptions
from router.dialects import ForeignSettings
from router.dialects.gopush2.protocol import NAME

_MAX_FILE_BYTES: Final = 1_048_576
_NUMBERS: Final = {
    "message_expire_sec": "gopush2.message_expire",
    "channel_expire_sec": "gopush2.channel_expire",
    "max_stored_message": "gopush2.max_stored_message",
    "max_subscriber_per_key": "gopush2.max_subscriber_per_key",
    "heartbeat_sec": "gopush2.heartbeat",
}
_SWITCHES: Final = {"auth": "gopush2.auth", "debug": "gopush2.debug"}
_LEVELS: Final = ("error", "warning", "info", "debug")
_NOTHING_HERE: Final = {
    "log": "log lines go to stderr",
    "max_procs": "the farm has as many workers as farm.workers says",
    "tcp_keepalive": "a device that has gone is found by its heartbeat, and by worker.keepalive",
    "channel_bucket": "channels need no buckets",
    "node": "a channel is not bound to a node",
    "redis": "messages, channels and tokens are kept in the store of store.kind",
    "read_buf_instance": "an idle device has no buffer",
    "read_buf_num_per_inst": "an idle device has no buffer",
    "read_buf_byte": "an idle device has no buffer",
    "write_buf_num": "an idle device has no buffer",
    "write_buf_byte": "an idle device has no buffer",
}
"""What has no meaning here, and why."""
_STORED: Final = "max_stored_message"
_IN_REDIS: Final = 2
_FIRST_PORT: Final = 8080
"""Both ports of the first version where its file does not say them."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_EVERYWHERE: Final = ("0.0.0.0", "::")
T = TypeVar("T")


class _Address(NamedTuple):
    host: str
    port: int


def settings_of(flag: str, file: Path) -> ForeignSettings:
    """What the file says. `flag` begins every problem and warning.

    Raises: MendableError with every problem.
    """
    try:
        data = read_at_most(file, _MAX_FILE_BYTES)
    except FileError as error:
        raise MendableError(f"{flag}: {error}") from None
    return parse(data, f"{flag} {file}")


def parse(data: bytes, origin: str) -> ForeignSettings:
    """The same of the file's text; `origin` begins every problem and warning."""
    try:
        tree = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MendableError(f"{origin}: {error}") from None
    except RecursionError:
        raise MendableError(f"{origin}: is nested too deeply") from None
    if not isinstance(tree, dict):
        raise MendableError(f"{origin}: expected an object with gopush2's options")
    given = {name.lower(): value for name, value in tree.items() if value is not None}
    found = _File(origin, given)
    found.read()
    if found.problems:
        raise MendableError(*found.problems)
    return ForeignSettings(found.settings, tuple(found.warnings))


class _File:
    """What is made of a file's options."""

    def __init__(self, origin: str, given: dict[str, Any]) -> None:
        self._origin = origin
        self._given = given
        hosts = [given[name] for name in ("addr", "admin_addr") if name in given]
        bare = bool(hosts) and all(isinstance(host, str) and ":" not in host for host in hosts)
        self._first_version = bare or "port" in given or "admin_port" in given
        self.settings: list[tuple[str, str, object]] = []
        self.warnings: list[str] = []
        self.problems: list[str] = []

    def read(self) -> None:
        self._set(f"dialects.{NAME}", True)
        self._listeners()
        for name, key in _NUMBERS.items():
            self._given_as(name, key, self._number)
        for name, key in _SWITCHES.items():
            self._given_as(name, key, self._switch)
        stored = self._given.get(_STORED)
        if isinstance(stored, int) and stored > StoreOptions().log_limit:
            self._set("store.log_limit", stored)
        self._given_as("log_level", "log.level", self._level)
        if self._first_version:
            self._set("gopush2.greeting", False)
            self._set("gopush2.msg_id", True)
        if self._taken("channel_type", self._number) == _IN_REDIS:
            self._warn("channel_type", "what /pub is given is kept here, so it need not be put into Redis before")
        for name in self._given:
            if name in _NOTHING_HERE:
                self._warn(name, _NOTHING_HERE[name])
            elif name not in _KNOWN:
                self.warnings.append(f"{self._origin}: {name[:100]!r} is no option of gopush2")

    # ------------------------------------------------------------------ where it listens

    def _listeners(self) -> None:
        devices, app_servers = self._address("addr", "port"), self._address("admin_addr", "admin_port")
        tcp = self._taken("protocol", self._switch)
        if devices is None or app_servers is None:
            return
        if devices == app_servers and not self._first_version and devices.port:
            self.problems.append(f"{self._origin}: addr and admin_addr are the same, with which gopush2 does not start")
            return
        host = devices.host
        if host not in _same(app_servers.host):
            host = host if host in _EVERYWHERE else _EVERYWHERE[0]
            self._warn("admin_addr", f"devices and app servers share listen.host here, which is now {host}")
        self._set("listen.host", host)
        if devices.port:
            self._set("gopush2.tcp_port" if tcp else "listen.device_port", devices.port)
        if tcp:
            self._set("listen.device_port", 0)
            self._warn("protocol", "devices may come by WebSocket too, on listen.device_port, which is now a free one")
        if app_servers.port and app_servers.port != devices.port:
            self._set("listen.router_port", app_servers.port)
        elif app_servers.port:
            self._set("gopush2.one_port", True)
        if app_servers.host not in _LOOPBACK:
            self._warn("admin_addr", "only programs on this host may ask there, until gopush2.admin_key is set")

    def _address(self, name: str, port: str) -> _Address | None:
        """None: there is a problem. A port of 0 is not said."""
        text = self._taken(name, self._text)
        if self._first_version:
            number = self._taken(port, self._number)
            return _Address(_host("localhost" if text is None else text), _FIRST_PORT if number is None else number)
        if text is None:
            return None if name in self._given else _Address("localhost", 0)
        host, colon, digits = text.rpartition(":")
        if not colon or not (digits.isascii() and digits.isdigit() and len(digits) <= 5):
            self.problems.append(f"{self._origin}: {name}: expected HOST:PORT, found {text[:100]!r}")
            return None
        return _Address(_host(host), int(digits))

    # ------------------------------------------------------------------ values

    def _given_as(self, name: str, key: str, check: Callable[[str, Any], Any]) -> None:
        value = self._taken(name, check)
        if value is not None:
            self._set(key, value)

    def _taken(self, name: str, check: Callable[[str, Any], T | None]) -> T | None:
        """An option's value; None: the file does not say it, or something else, which is a problem."""
        return check(name, self._given[name]) if name in self._given else None

    def _text(self, name: str, value: Any) -> str | None:
        if isinstance(value, str):
            return value
        self._expected(name, "a text", value)
        return None

    def _number(self, name: str, value: Any) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self._expected(name, "a whole number", value)
        return None

    def _switch(self, name: str, value: Any) -> bool | None:
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        self._expected(name, "0 or 1", value)
        return None

    def _level(self, name: str, value: Any) -> str | None:
        if isinstance(value, int) and 0 <= value < len(_LEVELS):
            return _LEVELS[value]
        self._expected(name, f"a number from 0 to {len(_LEVELS) - 1}", value)
        return None

    def _expected(self, name: str, what: str, value: Any) -> None:
        found = msgspec.json.encode(value).decode()
        self.problems.append(f"{self._origin}: {name}: expected {what}, found {found[:100]}")

    def _set(self, key: str, value: object) -> None:
        self.settings.append((self._origin, key, value))

    def _warn(self, name: str, why: str) -> None:
        self.warnings.append(f"{self._origin}: {name}: {why}")


_KNOWN: Final = frozenset(
    (*_NUMBERS, *_SWITCHES, "addr", "port", "admin_addr", "admin_port", "protocol", "log_level", "channel_type")
)


def _host(text: str) -> str:
    """As a listener has it: all addresses where none is named, IPv6 without brackets."""
    return text.removeprefix("[").removesuffix("]") or _EVERYWHERE[0]


def _same(host: str) -> tuple[str, ...]:
    """This host by its other names."""
    return _LOOPBACK if host in _LOOPBACK else (host,)
