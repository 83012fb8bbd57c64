"""gopush2's configuration file, as settings of a farm."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from farm import cli
from router.common.errors import MendableError
from router.dialects.gopush2.config_file import parse, settings_of

DATA = Path(__file__).parents[1] / "data" / "gopush2"
ORIGIN = "--gopush2-config x"


def settings(**options: Any) -> dict[str, Any]:
    """What the farm's settings are by this file."""
    return {key: value for _, key, value in parse(json.dumps(options).encode(), ORIGIN).settings}


def warnings(**options: Any) -> list[str]:
    """What it says of which option."""
    found = parse(json.dumps(options).encode(), ORIGIN).warnings
    assert all(line.startswith(f"{ORIGIN}: ") for line in found)
    return [line.removeprefix(f"{ORIGIN}: ") for line in found]


def problems(data: bytes | dict[str, Any]) -> list[str]:
    with pytest.raises(MendableError) as caught:
        parse(data if isinstance(data, bytes) else json.dumps(data).encode(), ORIGIN)
    assert all(line.startswith(f"{ORIGIN}: ") for line in caught.value.problems)
    return [line.removeprefix(f"{ORIGIN}: ") for line in caught.value.problems]


LIMITS = {
    "gopush2.message_expire": 7200,
    "gopush2.channel_expire": 28800,
    "gopush2.max_stored_message": 20,
    "gopush2.max_subscriber_per_key": 64,
    "gopush2.heartbeat": 30,
    "gopush2.auth": True,
}


def test_the_sample_of_the_first_version() -> None:
    found = settings_of("--gopush2-config", DATA / "first.conf")
    assert {key: value for _, key, value in found.settings} == LIMITS | {
        "dialects.gopush2": True,
        "listen.host": "localhost",
        "listen.device_port": 8080,
        "gopush2.one_port": True,
        "gopush2.debug": True,
        "gopush2.greeting": False,
        "gopush2.msg_id": True,
    }
    assert {origin for origin, _, _ in found.settings} == {f"--gopush2-config {DATA / 'first.conf'}"}
    assert [line.split(": ")[1] for line in found.warnings] == ["log", "max_procs", "tcp_keepalive", "channel_bucket"]


def test_the_sample_of_the_last_version() -> None:
    found = settings_of("--gopush2-config", DATA / "last.conf")
    assert {key: value for _, key, value in found.settings} == LIMITS | {
        "dialects.gopush2": True,
        "listen.host": "localhost",
        "listen.device_port": 8080,
        "listen.router_port": 8081,
        "gopush2.debug": False,
        "log.level": "error",
    }
    assert [line.split(": ")[1] for line in found.warnings] == [
        "channel_type",
        "node",
        "log",
        "max_procs",
        "tcp_keepalive",
        "channel_bucket",
        "redis",
        "read_buf_instance",
        "read_buf_num_per_inst",
        "read_buf_byte",
        "write_buf_num",
        "write_buf_byte",
    ]


@pytest.mark.parametrize("sample", ["first", "last"])
def test_a_farm_takes_it(sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check-config", "--gopush2-config", str(DATA / f"{sample}.conf"), "--device-port", "9000"]) == 0
    told = capsys.readouterr()
    effective = tomllib.loads(told.out)
    assert effective["dialects"]["gopush2"] is True
    assert effective["listen"]["device_port"] == 9000
    assert effective["gopush2"]["channel_expire"] == 28800
    assert told.err.count("--gopush2-config") == len(told.err.splitlines()) > 3


def test_an_empty_file_turns_it_on() -> None:
    assert settings() == {"dialects.gopush2": True, "listen.host": "localhost"}
    assert warnings() == []


def test_names_are_as_in_go() -> None:
    assert settings(Heartbeat_SEC=7, debug=None)["gopush2.heartbeat"] == 7
    assert "gopush2.debug" not in settings(debug=None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"port": 9000}, {"listen.device_port": 9000, "listen.router_port": 8080}),
        ({"admin_port": 9001}, {"listen.device_port": 8080, "listen.router_port": 9001}),
        ({"port": 9000, "admin_port": 9000}, {"listen.device_port": 9000, "gopush2.one_port": True}),
        ({"addr": "localhost"}, {"listen.device_port": 8080, "gopush2.one_port": True, "gopush2.greeting": False}),
        ({"addr": "", "admin_addr": "", "port": 9000}, {"listen.host": "0.0.0.0", "listen.device_port": 9000}),
        ({"addr": ":9000"}, {"listen.host": "0.0.0.0", "listen.device_port": 9000}),
        ({"addr": "[::1]:9000", "admin_addr": "localhost:9001"}, {"listen.host": "::1", "listen.router_port": 9001}),
        ({"addr": "[::]:9000", "admin_addr": "localhost:9001"}, {"listen.host": "::", "listen.router_port": 9001}),
        ({"addr": "10.0.0.1:80", "admin_addr": "127.0.0.1:81"}, {"listen.host": "0.0.0.0", "listen.router_port": 81}),
        ({"addr": "10.0.0.1:80", "admin_addr": "10.0.0.1:81"}, {"listen.host": "10.0.0.1", "listen.router_port": 81}),
        ({"addr": "10.0.0.1:80", "admin_addr": "127.0.0.1:80"}, {"listen.host": "0.0.0.0", "gopush2.one_port": True}),
        ({"addr": "a:80", "protocol": 1}, {"gopush2.tcp_port": 80, "listen.device_port": 0}),
    ],
)
def test_where_it_listens(options: dict[str, Any], expected: dict[str, Any]) -> None:
    found = settings(**options)
    assert {key: found.get(key) for key in expected} == expected
    assert ("listen.router_port" in found) != ("gopush2.one_port" in found) or "admin_addr" not in options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"addr": "10.0.0.1:80", "admin_addr": "127.0.0.1:81"}, ["admin_addr", "listen.host", "0.0.0.0"]),
        ({"addr": "10.0.0.1:80", "admin_addr": "10.0.0.1:81"}, ["admin_addr", "gopush2.admin_key"]),
        ({"addr": "localhost:80", "protocol": 1}, ["protocol", "listen.device_port"]),
        ({"channel_type": 2}, ["channel_type", "Redis"]),
        ({"max_procs": 4}, ["max_procs", "farm.workers"]),
        ({"pprof": 1}, ["'pprof'", "no option"]),
    ],
)
def test_what_has_no_meaning_here_is_told(options: dict[str, Any], words: list[str]) -> None:
    (line,) = warnings(**options)
    assert all(word in line for word in words)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ["Input data was truncated"]),
        (b"{", ["Input data was truncated"]),
        (b"[]", ["expected an object with gopush2's options"]),
        (b'"\xff"', ["'utf-8' codec"]),
        (b"[" * 100_000, ["is nested too deeply"]),
        ({"addr": "localhost", "admin_addr": ":1"}, ["addr: expected HOST:PORT, found 'localhost'"]),
        ({"protocol": 2}, ["protocol: expected 0 or 1, found 2"]),
        ({"addr": "localhost:"}, ["addr: expected HOST:PORT, found 'localhost:'"]),
        ({"addr": "a:1", "admin_addr": "a:1"}, ["addr and admin_addr are the same, with which gopush2 does not start"]),
        (
            {"heartbeat_sec": "30", "auth": 2, "log_level": 4, "addr": 5, "port": 1.5},
            [
                "addr: expected a text, found 5",
                "port: expected a whole number, found 1.5",
                'heartbeat_sec: expected a whole number, found "30"',
                "auth: expected 0 or 1, found 2",
                "log_level: expected a number from 0 to 3, found 4",
            ],
        ),
    ],
)
def test_what_is_wrong_in_it_is_told_in_a_line_each(data: bytes | dict[str, Any], expected: list[str]) -> None:
    found = problems(data)
    assert len(found) == len(expected)
    assert all(line.startswith(begin) for line, begin in zip(found, expected, strict=True))


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check-config", "--gopush2-config", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_value_that_is_out_of_range_is_told_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gopush2.conf"
    file.write_text('{"max_stored_message": 0}')
    assert cli.run(["check-config", "--gopush2-config", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"--gopush2-config {file}: gopush2.max_stored_message: expected a whole number of at least 1"
    )
    assert line.endswith("found 0")


def test_the_store_may_keep_as_many_messages_as_the_file_says() -> None:
    assert "store.log_limit" not in settings(max_stored_message=1000)
    assert settings(max_stored_message=1001)["store.log_limit"] == 1001


def test_more_than_the_store_may_keep_is_refused_at_start(capsys: pytest.CaptureFixture[str]) -> None:
    more = ("gopush2.max_stored_message=30", "gopush2.max_message_bytes=80000")
    less = ("store.log_limit=20", "store.log_bytes=70000")
    sets = [part for assignment in (*more, *less) for part in ("--set", assignment)]
    assert cli.run(["check-config", *sets]) == 0
    capsys.readouterr()
    assert cli.run(["check-config", *sets, "--set", "dialects.gopush2=true"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "gopush2.max_stored_message: 30 messages, and store.log_limit allows 20; raise that, or lower this",
        "gopush2.max_message_bytes: 80000 bytes, and store.log_bytes allows 70000; raise that, or lower this",
    ]
