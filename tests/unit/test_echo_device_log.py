"""`log.devices`: a line for a connection at its end, with who ended it and why."""

from __future__ import annotations

import io
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import write
from support.shard import Shard, Talker

from farm.dialects import specs
from farm.dialects.echo import SIDE as ECHO
from farm.settings import WorkerOptions
from farm.transports.frames import CLOSE
from farm.transports.request import Request
from farm.worker.device_log import dialect_of
from farm.worker.edge import Edge
from farm.worker.shared_path import Undecided
from router.common import logs
from router.common.client_address import Networks
from router.common.openings import Openings
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import TlsWire

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines about connections so far, without what all of them have."""
    root, farm = logging.getLogger(), logging.getLogger("farm")
    before = (list(root.handlers), root.level, farm.level, logging.raiseExceptions)
    stream = io.StringIO()
    logs.setup("json", "debug", stream=stream)

    def found() -> list[dict[str, Any]]:
        every = [json.loads(line) for line in stream.getvalue().splitlines()]
        ended = [line for line in every if line.pop("event") == "device.ended"]
        return [{name: value for name, value in line.items() if name != "time"} for line in ended]

    yield found
    root.handlers[:], farm.level, logging.raiseExceptions = before[0], before[2], before[3]
    root.setLevel(before[1])
    farm.setLevel(before[2])


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = Shard(log={"devices": 1.0})
    yield shard
    shard.close()


ABOUT = {"level": "info", "address": "127.0.0.1"}


def test_a_close_of_ours_has_its_code_and_reason(shard: Shard, lines: Lines) -> None:
    talker = shard.talker()
    shard.clock.pass_by(12.5)
    shard.sockets.begin_turn(shard.clock.monotonic())
    shard.sockets.let_go(shard.sockets.connections[talker.fd])
    assert lines() == []
    assert talker.frame()[0] == CLOSE
    talker.go()
    (line,) = lines()
    assert line == ABOUT | {
        "seconds": 12.5,
        "by": "server",
        "dialect": "support.shard",
        "code": 4100,
        "reason": "come back later",
    }


def test_a_close_of_the_peer_has_its_code_and_reason(shard: Shard, lines: Lines) -> None:
    talker = shard.talker()
    talker._client.send_close(4321, b"enough")
    shard.turn()
    talker.go()
    (line,) = lines()
    assert (line["by"], line["code"], line["reason"]) == ("peer", 4321, "enough")


def test_a_close_without_a_code_is_1005(shard: Shard, lines: Lines) -> None:
    talker = shard.talker()
    talker._client.send(b"", CLOSE)
    shard.turn()
    talker.go()
    (line,) = lines()
    assert (line["by"], line["code"], "reason" in line) == ("peer", 1005, False)


def test_a_peer_that_is_gone_has_left_without_a_close(shard: Shard, lines: Lines) -> None:
    device = shard.device()
    device.sock.close()
    shard.turn()
    (line,) = lines()
    assert (line["by"], line["reason"], line["device"]) == ("peer", "ended without a close", "0123456789abcdef" * 2)


def test_a_request_that_is_refused_has_its_status(shard: Shard, lines: Lines) -> None:
    with pytest.raises(ConnectionError):
        shard.open("/nowhere")
    shard.sockets.drop_all()
    (line,) = lines()
    assert (line["by"], line["reason"], "dialect" in line) == ("server", "answered 404", False)


def test_a_tls_handshake_that_fails_is_the_reason(lines: Lines, tmp_path: Path) -> None:
    files = write(tmp_path, "localhost")
    wire = TlsWire(Contexts(TlsOptions(certificate=(str(files.certificate),), key=(str(files.key),))).front)
    shard = Shard(log={"devices": 1.0}, edge=Edge(wire, Openings(Networks(()), wire, 16)))
    client = shard.connect()
    client.sendall(b"\x16\x03\x01\x00\x05junk!")
    shard.turn()
    client.close()
    shard.turn()
    (line,) = lines()
    shard.close()
    assert line["by"] == "server"
    assert line["reason"].startswith("TLS handshake: ")


def test_a_client_that_sends_no_request_is_told_of(shard: Shard, lines: Lines) -> None:
    shard.connect()
    shard.turn()
    shard.clock.pass_by(WorkerOptions().handshake_timeout + 1)
    shard.sockets.tick()
    (line,) = lines()
    assert (line["by"], line["reason"]) == ("server", "no request came in time")


def test_a_share_of_them_gets_one_and_nothing_is_left(lines: Lines) -> None:
    random.seed(5)
    shard = Shard(log={"devices": 0.5})
    talkers = [shard.talker() for _ in range(40)]
    for talker in talkers:
        talker.go()
    assert 8 < len(lines()) < 32
    log = shard.sockets.output._log  # type: ignore[attr-defined]
    assert log._kept == {}
    shard.close()


def test_at_the_level_debug_each_gets_one(lines: Lines) -> None:
    shard = Shard(log={"level": "debug"})
    shard.talker().go()
    assert [line["level"] for line in lines()] == ["debug"]
    shard.close()


def test_without_a_share_nothing_of_it_is_there(lines: Lines) -> None:
    shard = Shard()
    assert type(shard.sockets.output).__name__ == "Output"
    Talker(shard, *shard.open("/talk/x"), "").go()
    assert lines() == []
    shard.close()


def test_a_session_is_known_by_the_dialect_whose_module_it_stands_in() -> None:
    session = type("Any", (), {"__module__": f"farm.dialects.{ECHO.spec.name}.parts.session"})()
    assert dialect_of(session) == ECHO.spec.name
    assert ECHO.spec.name in {spec.name for spec in specs()}


def test_a_device_that_has_not_said_what_it_speaks_is_of_no_dialect() -> None:
    request = Request(b"GET", "/", "", {}, (1, 1))
    assert dialect_of(Undecided((), request)) == ""
