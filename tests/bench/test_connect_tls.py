"""TLS of the bench's devices, against OpenSSL's server; and what of the options goes together."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.figures.dialects import CONNECT_FIGURES, ratios, title_of
from bench.load.tls import TlsClients
from bench.runs.fronts import FARM, HAPROXY, Front, certificate


def test_devices_shake_hands_and_speak() -> None:
    clients = TlsClients()
    with certificate() as pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
    ends: dict[int, tuple[ssl.MemoryBIO, ssl.MemoryBIO, ssl.SSLObject]] = {}
    for descriptor in (5, 6):  # in turn: what they share is empty between two calls
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends[descriptor] = came, goes, context.wrap_bio(came, goes, server_side=True)
        came.write(clients.begin(descriptor))
    for _, goes, tls in ends.values():
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        assert goes.pending
    for descriptor, (came, goes, tls) in ends.items():
        hello = goes.read()
        assert clients.received(descriptor, hello[:100]) == (b"", b"", False)
        text, answer, done = clients.received(descriptor, hello[100:])
        assert (text, done) == (b"", True)
        came.write(answer)
        tls.do_handshake()
        tls.write(b"welcome")
        assert clients.received(descriptor, goes.read()) == (b"welcome", b"", False)
        came.write(clients.seal(descriptor, b"thanks"))
        assert tls.read() == b"thanks"
        clients.forget(descriptor)


def test_what_is_no_tls_is_an_error() -> None:
    clients = TlsClients()
    clients.begin(5)
    with pytest.raises(OSError, match=r"(?i)wrong.version"):
        clients.received(5, b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_where_tls_ends_is_the_farms_setting_and_a_runs_title() -> None:
    assert "listen.proxy_from=127.0.0.1" in Front(HAPROXY, Path("x")).settings
    assert "tls.certificate=x" in Front(FARM, Path("x")).settings
    parts = [
        {"dialect": "simplepush", "connect": {"setup": {"rate": 1000}}},
        {"dialect": "simplepush", "variant": FARM, "connect": {"setup": {"rate": 500}}},
    ]
    assert [title_of(part) for part in parts] == ["SimplePush", "SimplePush, TLS in the farm"]
    assert ratios(parts, CONNECT_FIGURES)["simplepush tls"]["setup_rate"] == 0.5


@pytest.mark.parametrize("more", [["--url", "ws://127.0.0.1:1/"], ["--dialect", "all"]])
def test_it_starts_farms_of_its_own(more: list[str]) -> None:
    result = CliRunner().invoke(main, ["connect", "--tls", *more])
    assert (result.exit_code, "--tls" in result.output) == (2, True)
