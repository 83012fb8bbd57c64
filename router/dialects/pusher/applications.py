"""The applications of the Pusher dialect, the file that lists them, and their signatures.

The file is JSON in the shape of MicroNotifier's own configuration. As in Go, in which that is written, the case of a
name does not matter and null counts as not given. What is written there and cannot be done here is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from router.common import option_texts as texts
from router.common.errors import MendableError
from router.common.files import FileError, read_at_most
from router.dialects.pusher.signatures import same

WEBHOOK_EVENTS: Final = (
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
)

_OF_TLS: Final = ("certificate", "private-key")
_KNOWN_TO_MICRONOTIFIER: Final = ("applications", "host", "port", *_OF_TLS, "redis")


class AppsError(MendableError):
    """The file of applications cannot be used. `problems` has one line each, for its author."""


# ---------------------------------------------------------------------- applications


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that an application wants events at, and which events."""

    url: str
    events: frozenset[str] = frozenset(WEBHOOK_EVENTS)


@dataclass(frozen=True, slots=True)
class App:
    """One application. Its secret is in no representation and so in no log."""

    id: str
    name: str
    key: str
    secret: str = field(repr=False)
    enabled: bool = True
    client_events: bool = False  # whether its sockets may send events to each other
    subscription_count: bool = False  # whether sockets are sent the number of subscribers
    authorized_connections: bool = False  # whether a socket must soon sign in or subscribe with a signature
    watchlists: bool = False  # whether a signed-in user may watch other users come and go
    unsigned: bool = False  # whether requests of its app servers need no signature
    connections_a_worker: int = 0  # 0: no limit of its own
    webhooks: tuple[Webhook, ...] = ()

    def signed_by_us(self, auth: str, signature: str) -> bool:
        """Whether `auth` is this application's key and this signature, as `KEY:HEX`; in constant time."""
        return same(auth, f"{self.key}:{signature}")


class Apps:
    """All applications, by ID and by key."""

    def __init__(self, apps: Iterable[App] = ()) -> None:
        self._all = tuple(apps)
        self.by_id: Mapping[str, App] = {app.id: app for app in self._all}
        self.by_key: Mapping[str, App] = {app.key: app for app in self._all}

    def __iter__(self) -> Iterator[App]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class Redis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where MicroNotifier's Redis was, or its Sentinel. An empty address: it had none."""

    address: str = ""
    password: str = ""
    database: Annotated[int, msgspec.Meta(ge=0)] = 0
    sentinel: bool = False
    secure: bool = False

    def __repr__(self) -> str:
        return f"Redis({self.address!r})"


@dataclass(frozen=True, slots=True)
class AppsFile:
    """What a file of applications holds, with where MicroNotifier was to listen."""

    apps: Apps
    host: str = ""
    port: int | None = None
    redis: Redis | None = None
    certificate: str = ""
    """The path of its file; "": it was to speak no TLS."""
    private_key: str = ""


# ---------------------------------------------------------------------- the file


_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"\A[^\x00-\x1f\x7f/]+\Z")]
_MAX_FILE_BYTES = 16_777_216
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class _WebhookEntry(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    events: list[str] = msgspec.field(default_factory=lambda: list(WEBHOOK_EVENTS))


class _AppEntry(msgspec.Struct, forbid_unknown_fields=True):
    name: _Word
    key: _Word
    secret: Annotated[str, msgspec.Meta(min_length=1)]
    id: _Word | int | None = None
    enabled: bool = True
    client_messages: bool = False
    subscription_count: bool = False
    authorized_connections: bool = False
    watchlists: bool = False
    unsigned: bool | None = None
    connections_a_worker: Annotated[int, msgspec.Meta(ge=0)] = 0
    webhooks: list[_WebhookEntry] = msgspec.field(default_factory=list)


def load(path: str, unsigned: bool = False) -> Apps:
    """The applications in a file; none without a file. Arguments and errors as of `read`."""
    return read(Path(path), unsigned).apps if path else Apps()


def read(path: Path, unsigned: bool = False) -> AppsFile:
    """Read a file of applications. unsigned: the default for an application.

    Raises: AppsError with every problem.
    """
    try:
        data = read_at_most(path, _MAX_FILE_BYTES)
    except FileError as error:
        raise AppsError(str(error)) from None
    return parse(data, str(path), unsigned)


def parse(data: bytes, where: str, unsigned: bool = False) -> AppsFile:
    """The applications in a file's text; `where` begins every problem.

    Raises: AppsError with every problem.
    """
    try:
        tree = _plain(msgspec.json.decode(data)) if data.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AppsError(f"{where}: {error}") from None
    except RecursionError:
        raise AppsError(f"{where}: JSON is nested too deeply") from None
    if not isinstance(tree, dict):
        raise AppsError(f"{where}: expected a JSON object with applications")
    problems = [f"{where}: {problem}" for problem in _unknown(tree)]
    listed = tree.get("applications", [])
    apps: list[App] = []
    if not isinstance(listed, list):
        problems.append(f"{where}: applications: expected a list")
    else:
        for number, entry in enumerate(listed):
            try:
                apps.append(_app(entry, unsigned))
            except (msgspec.ValidationError, AppsError) as error:
                problems.append(f"{where}: {_in_words(f'applications[{number}]', str(error))}")
        problems += (f"{where}: applications: {problem}" for problem in _not_unique(apps))
    host, port = tree.get("host", ""), tree.get("port")
    if not isinstance(host, str):
        problems.append(f"{where}: host: expected text")
        host = ""
    try:
        port = msgspec.convert(port, _Port | None)
    except msgspec.ValidationError:
        problems.append(f"{where}: port: expected a whole number from 0 to 65535")
    certificate, private_key = (tree.get(name, "") for name in _OF_TLS)
    if not (isinstance(certificate, str) and isinstance(private_key, str)):
        problems.append(f"{where}: certificate and private-key: expected text")
    elif bool(certificate) != bool(private_key):
        problems.append(f"{where}: expected both a certificate and a private-key, or neither")
    try:
        redis = msgspec.convert(tree.get("redis"), Redis | None)
    except msgspec.ValidationError as error:
        problems.append(f"{where}: {_in_words('redis', str(error))}")
        redis = None
    if problems:
        raise AppsError(*problems)
    used = redis if redis is not None and redis.address else None
    return AppsFile(Apps(apps), host, port, used, certificate, private_key)


def _plain(tree: Any) -> Any:
    """Names in lower case, and nothing that is null."""
    if isinstance(tree, dict):
        return {name.lower(): _plain(value) for name, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    return tree


def _unknown(tree: Mapping[str, Any]) -> Iterator[str]:
    """What the file asks for and neither has."""
    for name in tree:
        if name not in _KNOWN_TO_MICRONOTIFIER:
            yield f"{name}: no such option; there are {', '.join(_KNOWN_TO_MICRONOTIFIER)}"


def _app(entry: Any, unsigned: bool) -> App:
    read = msgspec.convert(entry, _AppEntry)
    number = read.name if read.id is None else str(read.id)
    return App(
        id=number,
        name=read.name,
        key=read.key,
        secret=read.secret,
        enabled=read.enabled,
        client_events=read.client_messages,
        subscription_count=read.subscription_count,
        authorized_connections=read.authorized_connections,
        watchlists=read.watchlists,
        unsigned=unsigned if read.unsigned is None else read.unsigned,
        connections_a_worker=read.connections_a_worker,
        webhooks=tuple(_webhook(number, hook) for number, hook in enumerate(read.webhooks)),
    )


def _webhook(number: int, hook: _WebhookEntry) -> Webhook:
    if not _is_url(hook.url):
        raise AppsError(f"expected a URL with http or https, without blanks - at `$.webhooks[{number}].url`")
    unknown = sorted(set(hook.events) - set(WEBHOOK_EVENTS))
    if unknown:
        raise AppsError(
            f"no such event {unknown[0]!r}, there are {', '.join(WEBHOOK_EVENTS)} - at `$.webhooks[{number}].events`"
        )
    return Webhook(hook.url, frozenset(hook.events or WEBHOOK_EVENTS))


def _is_url(text: str) -> bool:
    """Whether something can be posted there. Characters beyond ASCII are encoded when it is asked for."""
    if " " in text or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            return False
        if parts.hostname.isascii():
            texts.host(parts.hostname)
    except ValueError:
        return False
    return True


def _in_words(entry: str, message: str) -> str:
    """Turns "Expected `str`, got `int` - at `$.key`" into "applications[0].key: Expected `str`, got `int`"."""
    text, _, place = message.partition(" - at `$")
    return f"{entry}{place.rstrip('`')}: {text}"


def _not_unique(apps: Sequence[App]) -> Iterator[str]:
    for attribute in ("id", "key"):
        seen: set[str] = set()
        for app in apps:
            value = getattr(app, attribute)
            if value in seen:
                yield f"two have the {attribute} {value!r}"
            seen.add(value)
