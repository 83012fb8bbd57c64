"""TLS on the app servers' port, in one process: the test takes the turns. Farms with TLS are in
test_pusher_and_pushstream_tls.py.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.certificates import write
from support.farm_fixture import PATIENCE_S, until
from support.router_port import GET, HANDSHAKES_A_TURN, LARGE, LATER, MAX_HANDSHAKES, PAGE, POST, Rig
from support.tls_client import TlsClient, trusting

from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.http.message import Response

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
OK = b"HTTP/1.1 200 "


@contextmanager
def running(
    folder: Path, /, listen: dict[str, Any] | None = None, names: int = 0, send_buffer: int = 0, **endpoint: Any
) -> Iterator[tuple[Rig, Path]]:
    """names: that stand in the certificate besides localhost."""
    files = write(folder, "localhost", *(f"host-{number}.example.org" for number in range(names)))
    contexts = Contexts(TlsOptions(certificate=(str(files.certificate),), key=(str(files.key),)))
    rig = Rig(listen, contexts, send_buffer, **endpoint)
    try:
        yield rig, files.certificate
    finally:
        rig.close()


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_requests_over_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    with running(tmp_path) as (rig, certificate):
        client = rig.tls_client(trusting(certificate, version=version))
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        assert rig.ask_tls(client).startswith(OK)
        body = bytes(range(256)) * 400  # some records
        answer = rig.ask_tls(client, POST % len(body) + body)
        while len(answer) < len(body):
            rig.settle()
            answer += client.read() or b""
        assert answer.endswith(body)
        pipelined = rig.ask_tls(client, GET * 5)
        assert pipelined.count(OK) == 5
        assert rig.counters.http_handshakes == 1


def test_a_request_comes_with_the_end_of_the_handshake_and_in_any_pieces(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        client = TlsClient(rig.client(), trusting(certificate))
        client.turn()
        until(lambda: (rig.settle(), client.receive())[1], "the server's part has come")
        client.tls.do_handshake()
        data = client.sealed(GET)  # with the client's Finished
        for at in range(len(data)):
            client.end.sendall(data[at : at + 1])
            rig.settle()
        assert until(lambda: (rig.settle(), client.read())[1], "the answer").startswith(OK)


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_a_certificate_longer_than_what_the_kernel_takes_at_once(tmp_path: Path, version: ssl.TLSVersion) -> None:
    with running(tmp_path, names=1000, send_buffer=4096) as (rig, certificate):
        ends = [rig.client(receive_buffer=4096) for _ in range(2)]
        clients = [TlsClient(end, trusting(certificate, version=version)) for end in ends]
        for client in clients:
            client.turn()
        rig.settle()
        assert rig.counters.http_handshakes == 0
        until(lambda: [clients[0].turn(), rig.settle()][0], "the handshake is done")
        assert rig.ask_tls(clients[0]).startswith(OK)
        ends[1].close()  # with half of a flight in the kernel
        until(lambda: (rig.settle(), rig.counters.http_connections == 1)[1], "it is closed")
        assert rig.ask_tls(clients[0]).startswith(OK) and rig.counters.http_failed == 0


def test_plain_http_is_told_so_and_the_others_go_on(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        good = rig.tls_client(trusting(certificate))
        answer = rig.ask(rig.client(), GET)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"TLS" in answer
        for noise in (b"\x16\x03\x01\x00\x05hello", b"\0" * 50, b"SSH-2.0-x\r\n"):
            rig.client(noise).close()
        until(lambda: (rig.settle(), rig.counters.http_handshakes_failed == 4)[1], "all have failed")
        assert rig.ask_tls(good).startswith(OK)
        assert rig.counters.http_connections <= 2


def test_after_the_proxys_header_comes_tls(tmp_path: Path) -> None:
    with running(tmp_path, {"proxy_from": ("127.0.0.1",)}) as (rig, certificate):
        client = rig.tls_client(trusting(certificate), b"PROXY TCP4 203.0.113.9 198.51.100.1 12345 8081\r\n")
        answer = rig.ask_tls(client, b"GET /whence HTTP/1.1\r\nHost: push\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n203.0.113.9")
        direct = TlsClient(rig.client(), trusting(certificate))
        direct.turn()
        until(lambda: (rig.settle(), rig.counters.http_proxy_refused)[1], "TLS without a header is refused")


def test_large_answers_wait_for_a_slow_reader(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        client = rig.tls_client(trusting(certificate))
        client.send((PAGE % 1) * 2)
        found = 0

        def whole() -> bool:
            nonlocal found
            rig.settle() if found % 3 else rig.turn()
            found += len(client.read() or b"")
            return found >= 2 * LARGE

        until(whole, "both answers have come")
        assert rig.counters.http_buffered < LARGE


def test_a_client_that_is_cut_off_before_it_has_its_answer(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        client = rig.tls_client(trusting(certificate))
        client.send(PAGE % 1)
        until(lambda: (rig.settle(), rig.counters.http_buffered)[1], "some of the answer waits")
        client.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.end.close()
        until(lambda: (rig.settle(), rig.counters.http_connections == 0)[1], "it is closed")
        assert (rig.counters.http_failed, rig.counters.http_buffered, rig.port.senders.count(0.0)) == (0, 0, 0)


def test_a_client_that_sends_no_more_still_gets_its_answer(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        client = rig.tls_client(trusting(certificate, version=V1_3))
        client.tls.write(LATER)
        client.close_notify()  # in one packet
        until(lambda: (rig.settle(), rig.later)[1], "the request has come")
        rig.settle()
        rig.later[0](Response(200, b"later"))
        rig.turn()
        answer = until(client.read, "the answer")
        assert answer.endswith(b"later")
        until(lambda: (rig.settle(), client.read() is None)[1], "close_notify")  # and no cut


def test_handshakes_are_bounded_a_turn_and_have_an_end(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        context = trusting(certificate)
        open_ = rig.tls_client(context)
        storm = [TlsClient(rig.client(), context) for _ in range(3 * HANDSHAKES_A_TURN)]
        for client in storm:
            client.turn()
        open_.send(GET)
        rig.turn()
        assert sum(bool(client.receive()) for client in storm) <= HANDSHAKES_A_TURN
        assert (open_.read() or b"").startswith(OK)  # it has not waited for them
        until(lambda: (rig.settle(), all(client.turn() for client in storm))[1], "all are done")
        until(lambda: (rig.settle(), rig.counters.http_handshakes == 1 + len(storm))[1], "all are counted")
        TlsClient(rig.client(), context).turn()
        silent = rig.client()
        rig.clock.pass_by(16)
        rig.turn()
        rig.port.tick()
        assert silent.recv(1) == b""
        assert rig.counters.http_connections == 1 + len(storm)


def test_no_more_are_accepted_than_have_their_handshakes(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        context = trusting(certificate)
        storm = [TlsClient(rig.client(), context) for _ in range(3 * HANDSHAKES_A_TURN)]
        for client in storm:
            client.turn()
        rig.turn()
        later = socket.create_connection(rig.address, PATIENCE_S)
        rig.clients.append(later)
        rig.turn()
        assert rig.counters.http_connections == len(storm)
        rig.settle()
        assert rig.counters.http_connections == len(storm) + 1


def test_of_too_many_handshakes_the_one_that_began_first_is_closed(tmp_path: Path) -> None:
    with running(tmp_path) as (rig, certificate):
        context = trusting(certificate)
        halves = []
        for _ in range(MAX_HANDSHAKES + 1):
            halves.append(client := TlsClient(rig.client(), context))
            client.turn()
            rig.turn()
        until(lambda: (rig.settle(), rig.counters.http_handshakes_failed == 1)[1], "one is closed")
        until(lambda: halves[0].has_ended, "the end of the first")
        until(lambda: (rig.settle(), all(client.turn() for client in halves[1:]))[1], "the others are done")


def test_beyond_the_limit_the_refusal_is_an_answer(tmp_path: Path) -> None:
    with running(tmp_path, max_connections=1) as (rig, certificate):
        busy = rig.tls_client(trusting(certificate))
        busy.send(LATER)
        until(lambda: (rig.settle(), rig.later)[1], "the request has come")
        refused = TlsClient(rig.client(), trusting(certificate))
        until(lambda: (refused.turn(), rig.settle())[0], "the handshake is done")
        assert until(lambda: (rig.settle(), refused.read())[1], "the answer").startswith(b"HTTP/1.1 503 ")
