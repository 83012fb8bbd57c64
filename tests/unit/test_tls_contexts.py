"""TLS contexts: which certificate a client is shown, what is wrong with files, and files that change."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Files, write

from router.common import tls
from router.common.tls import Contexts, TlsError
from router.common.tls_settings import TlsOptions


def options(*files: Files, **more: Any) -> TlsOptions:
    return TlsOptions(
        certificate=tuple(str(each.certificate) for each in files), key=tuple(str(each.key) for each in files), **more
    )


def shown(contexts: Contexts, name: str | None, ciphers: str = "") -> bytes:
    """The certificate that a client which asks for this name is shown. ciphers: of TLS 1.2, if not any version."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    if ciphers:
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(ciphers)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = contexts.front.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for end in (theirs, ours, theirs, ours, theirs):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    found = theirs.getpeercert(True)
    assert found is not None
    return found


def der(files: Files) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


def test_the_certificate_is_chosen_by_the_name(tmp_path: Path) -> None:
    first, second = write(tmp_path, "one.example"), write(tmp_path, "two.example", "*.two.example")
    contexts = Contexts(options(first, second))
    assert shown(contexts, "one.example") == der(first)
    assert shown(contexts, "two.example") == der(second)
    assert shown(contexts, "PUSH.two.example") == der(second)
    assert shown(contexts, "a.push.two.example") == der(first)  # a wildcard stands for one label
    assert shown(contexts, "other.example") == der(first)
    assert shown(contexts, None) == der(first)


def test_two_kinds_of_keys_for_the_same_names(tmp_path: Path) -> None:
    ecdsa = write(tmp_path, "one.example", file="ecdsa")
    rsa = write(tmp_path, "one.example", file="rsa", kind="rsa")
    contexts = Contexts(options(ecdsa, rsa))
    assert shown(contexts, "one.example", "ECDHE+aECDSA") == der(ecdsa)
    assert shown(contexts, "one.example", "ECDHE+aRSA") == der(rsa)


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    good, other = write(tmp_path, "one.example"), write(tmp_path, "two.example")
    old = write(tmp_path, "old.example", days=-1)
    sealed = write(tmp_path, "sealed.example", passphrase=b"secret")
    rsa = write(tmp_path, "rsa.example", kind="rsa")
    other_kind = Files(good.certificate, rsa.key)
    crossed = Files(good.certificate, other.key)
    missing = Files(tmp_path / "none.pem", good.key)
    no_key = Files(good.certificate, tmp_path / "none.key")
    no_pem = Files(good.key, good.key)
    for files, expected in (
        (crossed, f"tls.key: {other.key} is not the key of {good.certificate}"),
        (other_kind, f"tls.key: {rsa.key} is not the key of {good.certificate}"),
        (missing, f"tls.certificate: {missing.certificate} cannot be read: No such file or directory"),
        (no_key, f"tls.key: {no_key.key} cannot be read: No such file or directory"),
        (no_pem, f"tls.certificate: {good.key} is no certificate in PEM format"),
        (old, f"tls.certificate: {old.certificate} has expired ("),
        (sealed, f"tls.key: {sealed.key} has a passphrase: "),
    ):
        (problem,) = tls.problems(options(good, files))
        assert problem.startswith(expected)
    assert tls.problems(options(good, other)) == []
    assert len(tls.problems(options(crossed, missing))) == 2
    (problem,) = tls.problems(TlsOptions(certificate=("a.pem",)))
    assert problem.startswith("tls.key: expected as many keys")
    (problem,) = tls.problems(TlsOptions(router="on"))
    assert problem.startswith("tls.router is on: ")
    assert tls.problems(TlsOptions()) == []
    assert tls.contexts(TlsOptions()) is None


def test_an_expired_certificate_keeps_no_process_from_starting_again(tmp_path: Path) -> None:
    assert Contexts(options(write(tmp_path, "old.example", days=-1))).expires < 2_000_000_000


def test_files_that_change_are_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="farm")
    first = write(tmp_path, "one.example")
    contexts = Contexts(options(first, watch=10.0))
    before = der(first)
    second = write(tmp_path, "one.example", kind="rsa", days=90)  # another kind of key, too
    contexts.look(0.0)
    renewed = der(second)
    assert shown(contexts, "one.example") == renewed != before
    assert caplog.messages == ["tls.renewed"]
    third = write(tmp_path, "one.example")
    contexts.look(9.0)
    assert shown(contexts, "one.example") == renewed
    contexts.look(10.0)
    assert shown(contexts, "one.example") == der(third)
    assert shown(contexts, "one.example", "ECDHE+aECDSA") == der(third)
    with pytest.raises(ssl.SSLError):
        shown(contexts, "one.example", "ECDHE+aRSA")  # nothing is left of the one before


def test_files_that_do_not_fit_leave_the_certificate_from_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="farm")
    files = write(tmp_path, "one.example")
    contexts = Contexts(options(files, watch=10.0))
    before = der(files)
    renewed = write(tmp_path, "one.example", file="renewed")
    os.replace(renewed.certificate, files.certificate)
    contexts.look(0.0)  # its key may be written in this moment
    assert caplog.messages == []
    contexts.look(10.0)
    contexts.look(20.0)
    assert caplog.messages == ["tls.not_renewed"]
    assert shown(contexts, "one.example") == before
    os.replace(renewed.key, files.key)
    contexts.look(30.0)
    assert shown(contexts, "one.example") == der(files) != before


def test_a_certificate_that_has_expired_renews_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="farm")
    files = write(tmp_path, "one.example")
    contexts = Contexts(options(files))
    before = der(files)
    write(tmp_path, "one.example", days=-1)
    contexts.look(0.0)
    contexts.look(60.0)
    assert caplog.messages == ["tls.not_renewed"]
    assert shown(contexts, "one.example") == before


def test_files_are_not_watched_where_that_is_off(tmp_path: Path) -> None:
    files = write(tmp_path, "one.example")
    contexts = Contexts(options(files, watch=0.0))
    before = der(files)
    write(tmp_path, "one.example")
    contexts.look(1e9)
    assert shown(contexts, "one.example") == before


def test_a_chain_without_its_file_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(TlsError):
        Contexts(TlsOptions(certificate=(str(tmp_path / "a.pem"),), key=(str(tmp_path / "a.key"),)))
