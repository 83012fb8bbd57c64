"""Certificates and keys in files, as openssl or certbot write them."""

from __future__ import annotations

import datetime
import functools
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Files(NamedTuple):
    """Of one certificate, which is its own root."""

    certificate: Path
    key: Path


def new_key(kind: str) -> PrivateKey:
    """kind: ecdsa or rsa."""
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else _rsa_key()


@functools.cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def write(
    folder: Path,
    *names: str,
    file: str = "",
    kind: str = "ecdsa",
    days: float = 30,
    passphrase: bytes = b"",
    addresses: tuple[str, ...] = (),
) -> Files:
    """Write `file`.pem and `file`.key for these names; file: the first of them, if not given. days: from now until it
    expires."""
    file = file or names[0].replace("*", "any")
    key = new_key(kind)
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    alternative: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternative += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    sealed = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    files = Files(folder / f"{file}.pem", folder / f"{file}.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
    files.key.chmod(0o600)
    return files
