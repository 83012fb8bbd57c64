"""TLS contexts: made from the files in the settings, shared by all processes, renewed when the files change.

A connection begins with the `front` context, which has no certificate. It has the keys of session tickets, and is made
before the routers and workers are forked: so a client that comes to another process than the last time resumes its
session there. The certificate comes from one of the contexts behind it, chosen by the name that the client asks for.
These are replaced when the files have changed, the front never is.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from router.common import logs
from router.common.errors import MendableError
from router.common.tls_settings import TlsOptions

_PROTOCOLS: Final = ("http/1.1",)
_TICKETS: Final = 1
"""That a client gets of TLS 1.3: it has one connection at a time."""
_NOT_ITS_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_MOST_BYTES: Final = 1_048_576
_OWN_NAME: Final = "*."

Stamp = tuple[Any, ...]


class TlsError(MendableError):
    """A certificate or a key cannot be used. `problems` has one line for each, which names the file."""


class _Loaded(NamedTuple):
    """A certificate with its key, in a context."""

    context: ssl.SSLContext
    names: frozenset[str]
    kind: str
    expires: float


class Contexts:
    """What the handshakes of a process need.

    front: the context that each connection begins with.
    """

    def __init__(self, options: TlsOptions, now: Callable[[], float] = time.time) -> None:
        """now: unix time.

        Raises: TlsError.
        """
        self._options = options
        self._now = now
        self._stamp = _stamp(options)
        self._seen = self._stamp  # that of the last look
        self._refused: Stamp = ()  # that with which they could not be used, which was logged
        self._next_look = 0.0
        self._take(_loaded(options))
        self.front = _context()
        self.front.sni_callback = self._choose

    def _take(self, loaded: list[_Loaded]) -> None:
        self._default = loaded[0].context
        self._by_name: dict[str, ssl.SSLContext] = {}
        for each in loaded:
            for name in each.names:
                self._by_name.setdefault(name, each.context)
        self.expires = min(each.expires for each in loaded)
        """When the first of the certificates expires, in unix time."""

    def _choose(self, connection: Any, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._of(name)

    def _of(self, name: str | None) -> ssl.SSLContext:
        if not name or len(self._by_name) < 2:
            return self._default
        name = name.lower()
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name.get(_OWN_NAME + name.partition(".")[2])
        return found or self._default

    def look(self, monotonic: float) -> None:
        """To be called once in a while: take up files that have changed. monotonic: the time, in seconds."""
        if not self._options.watch or monotonic < self._next_look:
            return
        self._next_look = monotonic + self._options.watch
        stamp = _stamp(self._options)
        if stamp == self._stamp:
            return
        settled, self._seen = stamp == self._seen, stamp
        try:
            loaded = _loaded(self._options)
            if expired := _expired(loaded, self._options, self._now()):
                raise TlsError(*expired)
        except TlsError as error:
            # A certificate and its key are written one after the other: what does not fit may do so at the next look.
            if settled and stamp != self._refused:
                self._refused = stamp
                logs.warning("tls.not_renewed", why=str(error), hint="the certificate from before stays in use")
            return
        self._stamp = stamp
        self._take(loaded)
        logs.event("tls.renewed", certificates=list(self._options.certificate), expires=date(self.expires))


def contexts(options: TlsOptions) -> Contexts | None:
    """The contexts, if any port speaks TLS. Raises: TlsError."""
    return Contexts(options) if options.for_devices or options.for_app_servers else None


def problems(options: TlsOptions) -> list[str]:
    """What keeps these settings from being used, a line each."""
    try:
        _in_pairs(options)
        if not options.certificate:
            return []
        return _expired(_loaded(options), options, time.time())
    except TlsError as error:
        return list(error.problems)


def expiries(options: TlsOptions) -> dict[str, float]:
    """When each certificate expires, in Unix time, by its path. Raises: TlsError."""
    return {path: _described(path)[2] for path in options.certificate}


def date(unix: float) -> str:
    """A moment as it stands in messages."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = _TICKETS
    context.set_alpn_protocols(_PROTOCOLS)
    return context


def _in_pairs(options: TlsOptions) -> Iterable[tuple[str, str]]:
    """Raises: TlsError."""
    certificates, keys = options.certificate, options.key
    if len(certificates) != len(keys):
        raise TlsError(
            f"tls.key: expected as many keys as tls.certificate has certificates ({len(certificates)}), "
            f"found {len(keys)}"
        )
    if not certificates and (options.for_devices or options.for_app_servers):
        where = "tls.device" if options.for_devices else "tls.router"
        raise TlsError(f"{where} is on: expected a certificate and its key in tls.certificate and tls.key, found none")
    return zip(certificates, keys, strict=True)


def _loaded(options: TlsOptions) -> list[_Loaded]:
    """Raises: TlsError."""
    found: list[_Loaded] = []
    wrong: list[str] = []
    for certificate, key in _in_pairs(options):
        try:
            names, kind, expires = _described(certificate)
            same = [each for each in found if each.names == names]
            shared = bool(same) and all(each.kind != kind for each in same)
            context = same[0].context if shared else _context()
            _load(context, certificate, key)
            found.append(_Loaded(context, names, kind, expires))
        except TlsError as error:
            wrong += error.problems
    if wrong:
        raise TlsError(*wrong)
    return found


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Raises: TlsError."""
    _read("tls.key", key)

    def passphrase() -> str:
        raise TlsError(f"tls.key: {key} has a passphrase: write the key without one, for the farm's user alone")

    try:
        context.load_cert_chain(certificate, key, passphrase)
    except ssl.SSLError as error:
        if error.reason in _NOT_ITS_KEY:
            raise TlsError(f"tls.key: {key} is not the key of {certificate}") from None
        raise TlsError(f"tls.key: {key}, or {certificate}, cannot be used: {error.reason or error}") from None
    except OSError as error:
        raise TlsError(f"tls.certificate: {certificate} cannot be used: {error.strerror or error}") from None


def _described(certificate: str) -> tuple[frozenset[str], str, float]:
    """The names of a certificate, the kind of its key, and when it expires. Raises: TlsError."""
    from cryptography import x509  # which only a farm with TLS needs

    data = _read("tls.certificate", certificate)
    try:
        leaf = x509.load_pem_x509_certificate(data)
        expires: datetime = leaf.not_valid_after_utc
        kind = type(leaf.public_key()).__name__
        try:
            alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = [name.lower() for name in alternative.get_values_for_type(x509.DNSName)]
        except x509.ExtensionNotFound:
            names = []
    except ValueError:
        raise TlsError(f"tls.certificate: {certificate} is no certificate in PEM format") from None
    return frozenset(names), kind, expires.timestamp()


def _read(option: str, path: str) -> bytes:
    """Raises: TlsError."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise TlsError(f"{option}: {path} cannot be read: {error.strerror or error}") from None
    if len(data) > _MOST_BYTES:
        raise TlsError(f"{option}: {path} is longer than {_MOST_BYTES} bytes")
    return data


def _expired(loaded: list[_Loaded], options: TlsOptions, now: float) -> list[str]:
    return [
        f"tls.certificate: {path} has expired ({date(each.expires)}): renew it"
        for path, each in zip(options.certificate, loaded, strict=True)
        if each.expires <= now
    ]


def _stamp(options: TlsOptions) -> Stamp:
    """What differs once one of the files is another, or was written anew."""
    stamps: list[Stamp] = []
    for path in (*options.certificate, *options.key):
        try:
            found = os.stat(path)
            stamps.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
        except OSError:
            stamps.append(())
    return tuple(stamps)
