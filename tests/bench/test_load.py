"""The bench: its bytes, its accounts, its processes, and its commands from their arguments to their exit codes."""

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from array import array
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import click
import h11
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.misbehaving import Rules, every, misbehaving
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    Request,
    TextMessage,
)

from bench.cli import main
from bench.errors import BenchError
from bench.farm_process import Status, attach, get, read_status, started
from bench.figures.percentiles import percentiles
from bench.interrupt import Interrupt
from bench.load import frames
from bench.load.frames import Message, PeerError
from bench.load.http_bytes import Response, origin_of, response_of, split_endpoint
from bench.load.link import MessageReader, encode
from bench.load.protocols import registering, simplepush, webpush
from bench.load.protocols.base import DONE, PONG, Received, Scenario, Step
from bench.load.protocols.simplepush import Update, head_of_push, push_request
from bench.load.protocols.webpush import (
    STAMP_BYTES,
    base64_of,
    head_of_webpush,
    opaque_of,
    version_in,
    webpush_request,
)
from bench.load.samples import (
    DATA_MISSING,
    DATA_RIGHT,
    DATA_WRONG,
    Account,
    Arrivals,
    Pushes,
    account,
    rates,
)
from bench.load.sockets import Address, source_of
from bench.load.vapid import VapidSigner
from bench.machine import ports, procfs
from bench.machine.usage import Usage, Use
from bench.progress import Progress
from bench.runs.load import Load, processes_for
from bench.runs.load_processes import LoadProcesses

CHANNEL = b"0f9e8d7c-6b5a-4433-8221-100f0e0d0c0b"
NOTE = b'{"messageType":"notification","updates":[{"channelID":"%b","version":%d}]}'


# ---- bytes


def server_frame(payload: bytes, opcode: int = 1, final: bool = True) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes((opcode | (0x80 if final else 0),)) + length + payload


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 65_535, 65_536])
def test_client_frames_are_what_wsproto_reads(size: int) -> None:
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(frames.upgrade_request("farm:8080", "/"))
    (request,) = server.events()
    assert isinstance(request, Request)
    assert (request.host, request.target, request.subprotocols) == ("farm:8080", "/", ["push-notification"])
    answer = server.send(AcceptConnection(subprotocol="push-notification"))
    assert frames.upgrade_end(answer) == len(answer)
    server.receive_data(frames.client_frame(b"x" * size))
    received = "".join(event.data for event in server.events() if isinstance(event, TextMessage))
    assert received == "x" * size


STREAM = (
    server_frame(b"{}")
    + server_frame(b"a" * 200)
    + server_frame(b"one ", final=False)
    + server_frame(b"?", frames.PING)
    + server_frame(b"two", 0)
    + server_frame(b"")
    + server_frame(b"\x03\xe8", frames.CLOSE)
)
MESSAGES = [
    Message(1, b"{}"),
    Message(1, b"a" * 200),
    Message(frames.PING, b"?"),
    Message(1, b"one two"),
    Message(1, b""),
    Message(frames.CLOSE, b"\x03\xe8"),
]


def split_all(pieces: list[bytes]) -> list[Message]:
    found: list[Message] = []
    parts: list[bytes] = []
    rest = b""
    for piece in pieces:
        messages, rest = frames.split_frames(rest + piece, parts)
        found += messages
    assert not rest and not parts
    return found


def test_frames_split_at_every_boundary() -> None:
    for cut in range(len(STREAM) + 1):
        assert split_all([STREAM[:cut], STREAM[cut:]]) == MESSAGES
    assert split_all([bytes((byte,)) for byte in STREAM]) == MESSAGES


@given(st.binary(max_size=400))
def test_the_fast_path_agrees_with_the_parser(payload: bytes) -> None:
    data = server_frame(payload)
    fast = frames.single_text(data)
    assert fast in (payload, None)
    assert frames.split_frames(data, []) == ([Message(1, payload)], b"")
    assert frames.single_text(data[:-1]) is None
    assert frames.single_text(data + b"\x81\x00") is None


@pytest.mark.parametrize("data", [b"\x81\x80\0\0\0\0", b"\xc1\x00", b"\x80\x00", b"\x01\x00\x81\x00"])
def test_bad_frames_are_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        frames.split_frames(data, [])


def test_upgrade_response_at_every_boundary() -> None:
    answer = b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: " + frames.UPGRADE_ACCEPT + b"\r\n\r\n"
    for cut in range(len(answer)):
        assert frames.upgrade_end(answer[:cut]) == 0
    assert frames.upgrade_end(answer + b"\x81") == len(answer)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 503 Full\r\n\r\n", "HTTP 503"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: wrong\r\n\r\n", "wrong accept key"),
        (b"x" * 70_000, "response head without end"),
    ],
)
def test_refused_upgrades(answer: bytes, kind: str) -> None:
    with pytest.raises(PeerError, match=kind):
        frames.upgrade_end(answer)


def test_notifications_in_every_shape() -> None:
    fast = NOTE % (CHANNEL, 1234567890123)
    assert simplepush.updates_of(fast) == [Update(CHANNEL, 1234567890123)]
    spaced = json.dumps(json.loads(fast), indent=1).encode()
    assert simplepush.updates_of(spaced) == [Update(CHANNEL, 1234567890123)]
    data = fast.replace(b"}]}", b',"data":"a]}"}]}')
    assert simplepush.updates_of(data) == [Update(CHANNEL, 1234567890123, b"a]}")]
    for text in ("", 'a"b', "\\\\"):
        escaped = fast.replace(b"}]}", b',"data":%b}]}' % json.dumps(text).encode())
        assert simplepush.updates_of(escaped) == [Update(CHANNEL, 1234567890123, text.encode())]
    two = fast.replace(b"}]}", b'},{"version":2,"channelID":"b"}]}')
    assert simplepush.updates_of(two) == [Update(CHANNEL, 1234567890123), Update(b"b", 2)]
    assert simplepush.updates_of(b'{"messageType":"notification","expired":["b"]}') == []
    assert simplepush.updates_of(b"{}") is None
    for bad in (b"nonsense", b"[]", b'{"messageType":"notification","updates":[{"version":1}]}'):
        with pytest.raises(PeerError):
            simplepush.updates_of(bad)


def test_webpush_messages_in_every_shape() -> None:
    scenario = Scenario("farm:8080", channels=2, payload=50)
    protocol = webpush.WebPush(scenario, key="BK")
    channel = protocol.channel_id(11).decode()
    assert json.loads(protocol.registration(channel.encode())) == {
        "messageType": "register",
        "channelID": channel,
        "key": "BK",
    }
    note: dict[str, Any] = {"messageType": "notification", "channelID": channel, "version": 'a"\\#'}
    note |= {"data": base64_of(opaque_of(1234567890123, 50)), "headers": {"encoding": "aes128gcm"}}

    def received(**fields: Any) -> Received:
        found = protocol.received(5, json.dumps(note | fields, indent=1).encode())
        assert found is not None
        return found

    good = received()
    assert good.updates == ((11, 1234567890123, DATA_RIGHT),) and not good.strays
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(frames.upgrade_request("farm:8080", "/"))
    list(server.events())
    server.send(AcceptConnection())
    server.receive_data(good.reply)
    (ack,) = server.events()
    assert isinstance(ack, TextMessage)
    assert json.loads(ack.data) == {
        "messageType": "ack",
        "updates": [{"channelID": channel, "version": note["version"], "code": 100}],
    }
    assert received(data=base64_of(opaque_of(1234567890123, 51))).updates == ((11, 1234567890123, DATA_WRONG),)
    assert received(headers={"encoding": "aesgcm"}).updates[0][2] == DATA_WRONG
    assert received(headers=None).updates[0][2] == DATA_WRONG
    assert received(data=None).updates == received(data="").updates == ((11, 0, DATA_MISSING),)
    for text in ("A" * 11, "\u00e4" * 12, "!" * 70, "_" * 70):  # no version, or one of 72 bits
        assert received(data=text).updates == ((11, 0, DATA_WRONG),)
    for other in (str(CHANNEL), protocol.channel_id(12).decode()):
        assert received(channelID=other) == Received(strays=1)
    assert protocol.received(5, b"{}") == protocol.received(5, b'{"messageType":"ping"}') == PONG
    assert protocol.received(5, b'{"messageType":"broadcast","broadcasts":{"a":"1"}}') is None
    for bad in (b"nonsense", b"[]", b'{"messageType":"notification","channelID":"b"}', b'{"messageType":7}'):
        with pytest.raises(PeerError):
            protocol.received(5, bad)


def test_a_webpush_device_is_set_up_and_comes_back() -> None:
    protocol = webpush.WebPush(Scenario("farm:8080", channels=2), key="BK")
    uaid = "0123456789abcdef" * 2
    hello = json.dumps({"messageType": "hello", "uaid": uaid, "status": 200, "use_webpush": True}).encode()
    assert protocol.answered(0, 0, b"{}", b"") is None
    first = protocol.answered(0, 0, hello, b"")
    assert first is not None and first.identity.hex() == uaid and first.send and first.step == 1
    answer = b'{"messageType":"register","channelID":"c","status":200,"pushEndpoint":"http://h/wpush/v2/%d"}'
    second = protocol.answered(0, 1, answer % 0, b"")
    assert second is not None and (second.channel, second.endpoint) == (0, b"http://h/wpush/v2/0") and second.send
    assert protocol.answered(0, 2, answer % 1, b"") == Step(b"", DONE, 1, b"http://h/wpush/v2/1")
    assert protocol.answered(0, 0, hello, first.identity) == Step(b"", DONE, identity=first.identity)
    other = protocol.answered(0, 0, hello, bytes(16))  # it was given another identity, and registers anew
    assert other is not None and other.step == 1
    for bad in (b'{"messageType":"hello","uaid":"a","status":200}', hello.replace(b"true", b"false")):
        with pytest.raises(PeerError, match="not WebPush"):
            protocol.answered(0, 0, bad, b"")
    with pytest.raises(PeerError, match="status 400"):
        protocol.answered(0, 1, b'{"messageType":"register","status":400,"pushEndpoint":"bad key"}', b"")


def test_answers_to_hello_and_register() -> None:
    assert registering.uaid_of(b'{"messageType":"hello","uaid":"a","status":200}') == b"a"
    assert registering.uaid_of(b'{ "status" : 200, "uaid" : "a", "messageType" : "hello" }') == b"a"
    assert registering.uaid_of(b'{"messageType":"hello","status":200}') == b""
    assert registering.uaid_of(b"{}") is None
    with pytest.raises(PeerError, match="status 503"):
        registering.uaid_of(b'{"messageType":"hello","status":503}')
    answer = {"messageType": "register", "status": 200, "pushEndpoint": "http://h/u/t"}
    assert registering.endpoint_of(json.dumps(answer, separators=(",", ":")).encode()) == b"http://h/u/t"
    assert registering.endpoint_of(json.dumps(answer).replace("/", "\\/").encode()) == b"http://h/u/t"
    assert registering.endpoint_of(b"{}") is None
    for bad in (b'{"messageType":"register","status":401}', b'{"messageType":"register","status":200}'):
        with pytest.raises(PeerError):
            registering.endpoint_of(bad)


def test_pushes_are_what_h11_reads() -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(push_request(b"/update/token", head_of_push("farm:8081"), 42))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"PUT", b"/update/token")
    assert dict(request.headers)[b"content-type"] == b"application/x-www-form-urlencoded"
    body = server.next_event()
    assert isinstance(body, h11.Data) and body.data == b"version=42"
    assert isinstance(server.next_event(), h11.EndOfMessage)


@given(st.integers(0, 2**63 - 1), st.integers(STAMP_BYTES, 6000))
def test_webpush_pushes_are_what_h11_reads(version: int, size: int) -> None:
    head = head_of_webpush("farm:8081", "vapid t=a.b.c, k=d")
    server = h11.Connection(h11.SERVER)
    server.receive_data(webpush_request(b"/wpush/v2/token", head, version, size))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"POST", b"/wpush/v2/token")
    headers = dict(request.headers)
    assert headers[b"authorization"] == b"vapid t=a.b.c, k=d" and headers[b"content-encoding"] == b"aes128gcm"
    assert int(headers[b"ttl"]) > 0
    body = server.next_event()
    assert isinstance(body, h11.Data) and len(body.data) == size and body.data == opaque_of(version, size)
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert version_in(base64_of(body.data)) == version
    if size > 60 and version:
        assert opaque_of(version - 1, size)[STAMP_BYTES:] != body.data[STAMP_BYTES:]


def test_a_vapid_header_is_signed() -> None:
    signer = VapidSigner()
    scheme, _, fields = signer.authorization("http://farm:8081").partition(" ")
    token, key = (field.strip().partition("=")[2] for field in fields.split(","))
    assert scheme == "vapid" and key == signer.public != VapidSigner().public

    def bytes_of(text: str) -> bytes:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))

    header, claims, signature = (bytes_of(part) for part in token.split("."))
    assert json.loads(header)["alg"] == "ES256"
    said = json.loads(claims)
    assert said["aud"] == "http://farm:8081" and time.time() < said["exp"] < time.time() + 86_400
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes_of(key))
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    public.verify(der, token.rpartition(".")[0].encode(), ec.ECDSA(SHA256()))


def test_responses_at_every_boundary() -> None:
    data = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}"
    for cut in range(len(data)):
        assert response_of(data[:cut]) is None
    assert response_of(data + b"HTTP/1.1 200") == Response(202, len(data), True)
    assert response_of(b"HTTP/1.1 204 No\r\n\r\n") == Response(204, 19, False)
    for bad in (b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\n\r\n", b"x" * 70_000):
        with pytest.raises(PeerError):
            response_of(bad)


def test_endpoints() -> None:
    assert split_endpoint(b"http://h:81/u/t?a=b") == ("h", 81, "h:81", b"/u/t?a=b")
    assert split_endpoint(b"http://h/u") == ("h", 80, "h", b"/u")
    origins = [b"http://h:81/u/t?a=b", b"http://H:80/u", b"http://[::1]:8081/u"]
    assert list(map(origin_of, origins)) == ["http://h:81", "http://h", "http://[::1]:8081"]
    for bad in (b"https://h/u", b"/u", b"http://h:x/u"):
        with pytest.raises(PeerError):
            split_endpoint(bad)


def test_words_at_every_boundary() -> None:
    numbers = array("q", [1, -2, 10])
    data = encode("ready", {"up": 3}, (numbers.tobytes(), b"")) + encode("stop", {}, ())
    for cut in range(len(data) + 1):
        reader = MessageReader()
        ready, stop = reader.feed(data[:cut]) + reader.feed(data[cut:])
        assert (ready.kind, ready.fields, ready.blobs[1], stop.kind) == ("ready", {"up": 3}, b"", "stop")
        assert ready.numbers(0, "q") == numbers


# ---- figures


def test_percentiles_are_nearest_rank() -> None:
    points = percentiles(range(1, 1001), 2)
    assert points == {"p50": 1000, "p90": 1800, "p99": 1980, "p99.9": 1998, "max": 2000}
    assert percentiles([7]) == dict.fromkeys(points, 7)
    assert percentiles([]) == {}


def test_rates_overall_and_in_the_middle() -> None:
    times = [1.0 + step / 100 for step in range(100)]
    overall, steady = rates(times, 0.0)
    assert overall == pytest.approx(100 / 1.99)
    assert steady == pytest.approx(100)
    assert rates([], 0.0) == rates([1.0], 1.0) == (0.0, 0.0)


def accounted(pushes: list[tuple[int, int, int]], arrivals: list[tuple[int, int]], gone: list[int]) -> Account:
    """Pushes as (channel, version, status), arrivals as (channel, version); all take 5 microseconds."""
    sent, got = Pushes(), Arrivals(gone=array("I", gone))
    for channel, version, status in pushes:
        sent.channels.append(channel)
        sent.versions.append(version)
        sent.statuses.append(status)
    for channel, version in arrivals:
        got.channels.append(channel)
        got.versions.append(version)
        got.times.append(version + 5)
    return account(sent, got)


def test_every_push_is_accounted_for() -> None:
    pushes = [(1, 10, 200), (1, 11, 202), (1, 12, 200), (2, 13, 200), (3, 14, 202), (4, 15, 503), (5, 16, 0)]
    arrivals = [(1, 12), (1, 10), (1, 10), (4, 15), (9, 99)]
    result = accounted(pushes, arrivals, gone=[3])
    assert result.fields() == {
        "sent": 7,
        "statuses": {0: 1, 200: 3, 202: 2, 503: 1},
        "delivered": 2,
        "stored": 0,
        "lost": 1,  # channel 2
        "superseded": 1,  # version 11
        "undelivered": 1,  # channel 3
        "duplicates": 1,
        "reordered": 1,
        "unexpected": 1,
        "refused": 1,
        "unanswered": 1,
        "refused_but_arrived": 1,
        "wrong_data": 0,
    }
    assert list(result.latencies) == [5, 5, 5]
    assert not result.clean
    assert accounted([(1, 10, 200)], [(1, 10)], gone=[]).clean


def test_an_accepted_push_that_was_never_overtaken_is_lost() -> None:
    assert accounted([(1, 10, 200), (1, 11, 200)], [(1, 11)], gone=[]).lost == 1
    assert accounted([(1, 10, 202)], [], gone=[]).lost == 1


def test_sources_change_every_4000_connections() -> None:
    here = Address(socket.AF_INET, "127.0.0.1", 80)
    assert [source_of(index, here) for index in (0, 3_999, 4_000, 8_000)] == [
        *(None, None),
        *("127.1.0.1", "127.1.0.2"),
    ]
    assert len({source_of(index, here) for index in range(4_000, 4_000_000, 4_000)}) == 999
    assert source_of(100_000, Address(socket.AF_INET, "10.0.0.1", 80)) is None


@pytest.mark.parametrize(
    ("uses", "machine", "start"),
    [
        (
            [Use("router", 1, 9.5, 0.95, 1.0), Use("load devices", 2, 9.9, 0.99, 1.0)],
            0.99,
            "the load generator",
        ),
        ([Use("router", 1, 9.5, 0.95, 1.0), Use("load devices", 2, 5.0, 0.5, 0.6)], 0.7, "the router"),
        ([Use("router", 1, 6.0, 0.6, 1.0), Use("load devices", 2, 6.0, 0.6, 1.0)], 0.95, "the machine"),
        ([Use("router", 1, 6.0, 0.6, 1.0)], 0.5, "router: a process was never idle"),
        ([Use("router", 1, 2.0, 0.2, 0.2)], 0.2, "none"),
    ],
)
def test_the_limit_is_named(uses: list[Use], machine: float, start: str) -> None:
    usage = Usage(10.0, uses, machine)
    assert usage.limit().startswith(start)
    assert usage.fields(1000)["groups"][uses[0].group]["cpu_seconds_a_1000"] == uses[0].cpu


def test_cpu_time_is_finer_than_a_tick_and_a_process_that_is_gone_has_none() -> None:
    before = time.process_time()
    mine = procfs.cpu_seconds(os.getpid())
    assert mine is not None and before <= mine <= time.process_time()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert procfs.cpu_seconds(child.pid) is not None
        child.communicate(b"\n", timeout=60)
        assert procfs.cpu_seconds(child.pid) is None
    finally:
        child.kill()


def test_status_of_a_farm() -> None:
    body = {
        "router": {"pid": 7},
        "workers": [
            {"shard": 0, "pid": 8, "connections": 5, "gc_pause_max_ms": 0.5},
            {"shard": 1, "pid": 9, "connections": None, "gc_pause_max_ms": None},
        ],
    }
    assert read_status(body) == Status([7], {"0": 8, "1": 9}, {"0": 5, "1": 0}, 0.5)
    python = {"implementation": "CPython", "version": "3.11.2", "pgo": "yes", "lto": "yes"}
    assert read_status(body | {"python": python}).python == python


def test_processes_for_devices() -> None:
    assert processes_for(Load(18_000)) in (1, 2)  # two where the descriptor limit asks for it
    assert processes_for(Load(10, processes=4)) == 4
    assert processes_for(Load(2, processes=4)) == 2
    with pytest.raises(BenchError, match="load processes"):
        processes_for(Load(100_000, processes=1))


# ---- reports


def test_progress_on_a_terminal_and_off_it() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with Progress(console) as progress:
            for title in ("setting up", "pushing"):
                progress.step(title, 10)
                progress.update(5)
        assert isinstance(console.file, io.StringIO)
        assert "setting up" in console.file.getvalue()


# ---- processes


def ended(pid: int) -> bool:
    """Wait until a process that need not be ours is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)


IDLE_PUSHERS: dict[str, Any] = {
    "wire": "put",
    "address": (2, "127.0.0.1", 1),
    "host": "",
    "connections": 1,
    "timeout": 1.0,
    "payload": 0,
}


def test_a_child_that_dies_is_named() -> None:
    with pytest.raises(BenchError, match=r"a server .* code -9"), LoadProcesses() as processes:
        child = processes.start("pushers", "a server", b"", b"", **IDLE_PUSHERS)
        processes.gather([child], "up")
        os.kill(child.pid, signal.SIGKILL)
        processes.gather([child], "never")


def test_children_do_not_outlive_a_bench_that_is_killed() -> None:
    code = (
        "import sys\n"
        "from bench.runs.load_processes import LoadProcesses\n"
        "with LoadProcesses() as processes:\n"
        f"    child = processes.start('pushers', 'a server', b'', b'', **{IDLE_PUSHERS})\n"
        "    processes.gather([child], 'up')\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bench:
        assert bench.stdout is not None
        pid = int(bench.stdout.readline())
        bench.kill()
        assert ended(pid)


def test_an_interrupt_ends_with_what_was_measured(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with misbehaving(Rules()) as server:
        command = [sys.executable, "-m", "bench.cli", "connect", "--url", server.url, "--admin", ""]
        command += ["--devices", "10000", "--rate", "100", "--json", str(results)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
            assert bench.stderr is not None
            assert any(b"setting up devices" in line for line in bench.stderr)
            bench.send_signal(signal.SIGINT)
            output, _ = bench.communicate(timeout=60)
    assert bench.returncode == 1
    assert b"interrupted" in output
    body = json.loads(results.read_text())
    assert body["interrupted"] and body["connect"]["setup"]["ready"] < 10_000
    assert "baseline" not in body


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["connect", "--devices", "0"], 2, "--devices"),
        (["push", "--store", "tape"], 2, "--store"),
        (["connect", "--url", "http://127.0.0.1/"], 1, "ws://host:port"),
        (["connect", "--url", "ws://127.0.0.1:1/", "--admin", "http://127.0.0.1:1"], 1, "no answer from"),
        (["connect", "--help"], 0, "farm bench connect --devices"),
    ],
)
def test_arguments_and_exit_codes(arguments: list[str], code: int, text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    assert text in result.output


def test_the_commands_end_with_a_table_and_a_code(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with misbehaving(Rules(push=every(10, "lose"))) as server:
        common = ["--url", server.url, "--admin", "", "--devices", "10", "--json", str(results)]
        arguments = ["--half", "--seconds", "0.3", "--grace", "0.1", *common]
        pushed = CliRunner().invoke(main, ["push", *arguments])
        body = json.loads(results.read_text())
        connected = CliRunner().invoke(main, ["connect", "--no-baseline", "--hold", "0", *common])
    assert pushed.exit_code == 1
    assert [run["mode"] for run in body["runs"]] == ["flat out", "open loop"]
    assert sum(run["lost"] for run in body["runs"]) == server.faults["lose"] > 0
    assert "lost (accepted, never arrived)" in pushed.output
    assert connected.exit_code == 0, connected.output
    assert "set-ups/s, middle half" in connected.output
    assert json.loads(results.read_text())["connect"]["held"] == 10


def test_a_url_is_taken_apart() -> None:
    farm = attach("ws://127.0.0.1:90/a", "http://127.0.0.1:91/")
    assert (farm.address.port, farm.host, farm.path, farm.admin) == (
        90,
        "127.0.0.1:90",
        "/a",
        "http://127.0.0.1:91",
    )


FAKE_FARM = """#!{python}
import http.server, json, os, sys
if {broken}:
    sys.exit("no such option")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(arguments=sys.argv[1:], cwd=os.getcwd(), env=dict(os.environ))).encode())
port = int(sys.argv[sys.argv.index("--admin-port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def fake_farm(path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    script = path / "farm"
    script.write_text(FAKE_FARM.format(python=sys.executable, broken=broken))
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))


def test_a_farm_is_started_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_farm(tmp_path, monkeypatch, broken=False)
    monkeypatch.setenv("FARM_STORE_KIND", "memory")
    with started(3, "sqlite", Interrupt(), ("link.lease=9",)) as farm:
        seen = json.loads(get(farm.admin, "/")[1])
        assert seen["arguments"][:6] == ["-P", "-m", "farm", "start", "--workers", "3"]
        assert seen["arguments"][-6:] == [
            "--set",
            "store.kind=sqlite",
            "--set",
            "drain.seconds=1",
            "--set",
            "link.lease=9",
        ]
        assert "FARM_STORE_KIND" not in seen["env"]
        assert farm.supervisor is not None
    assert not Path(seen["cwd"]).exists()
    assert ended(farm.supervisor)


def test_a_farm_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_farm(tmp_path, monkeypatch, broken=True)
    with pytest.raises(BenchError, match="code 1 at its start:\nno such option"), started(1, "sqlite", Interrupt()):
        raise AssertionError


# ---- with a farm


def farm_bench(*arguments: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "farm", "bench", *arguments, "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    body = json.loads(file.read_text())
    assert isinstance(body, dict)
    return body


def test_connect_with_a_farm_of_its_own(tmp_path: Path) -> None:
    body = farm_bench("connect", "--devices", "200", "--workers", "2", file=tmp_path / "connect.json")
    measured = body["connect"]
    assert measured["setup"]["ready"] == measured["held"] == 200
    assert not measured["setup"]["failures"]
    assert sum(measured["shards"].values()) == 200
    assert measured["user_memory"]["workers"]["after"] > 0
    assert body["baseline"]["setup"]["ready"] == 200


def test_push_with_a_farm_of_its_own(tmp_path: Path) -> None:
    arguments = ("push", "--devices", "100", "--seconds", "1", "--half", "--store", "memory")
    body = farm_bench(*arguments, file=tmp_path / "push.json")
    flat_out, half = body["runs"]
    for run in (flat_out, half):
        assert run["clean"] and run["delivered"] == run["pushes"] > 0
        assert run["usage"]["groups"].keys() >= {"router", "workers", "load devices", "load pushers"}


# ---- ports for servers


def test_free_ports_are_none_that_the_kernel_gives_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "sysctl", lambda name: "10100 65535")
    found = ports.free_ports(3)
    assert len(set(found)) == 3
    assert all(ports.FIRST <= port < 10_100 for port in found)


def test_ports_that_are_taken_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(ports, "sysctl", lambda name: f"{taken + 1} 65535")
        monkeypatch.setattr(ports, "FIRST", taken)
        (found,) = ports.free_ports(1)  # one of the kernel's, as no other is left
        assert found != taken


def options_with_numbers() -> list[tuple[str, str]]:
    """Every option of every command whose type is a float's."""
    return [
        (name, option.opts[0])
        for name, command in sorted(main.commands.items())
        for option in command.params
        if isinstance(option.type, click.types.FloatParamType)
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
def test_no_option_takes_what_is_no_number(value: str) -> None:
    options = options_with_numbers()
    assert len(options) > 30
    for name, option in options:
        refused = CliRunner().invoke(main, [name, option, value])
        assert (refused.exit_code, f"'{option}'" in refused.output) == (2, True), (name, option, refused.output)
