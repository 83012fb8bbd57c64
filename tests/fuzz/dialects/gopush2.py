"""gopush2: what a device sends, over WebSocket and over TCP; requests of app servers, and its configuration file.

A session's input is lines: the query, then messages of the device, or "!": `!reply N` and `!log N` answer what is open,
`!tick N`, `!pass N`. The reader's is the bytes of a TCP connection, of which the first says how they are cut.
"""

from __future__ import annotations

import json
from typing import Any, Final

from support.common import Rig
from support.gopush2_device import Device, event

import farm.dialects.gopush2.dialect
import farm.dialects.gopush2.multibulk
import farm.dialects.gopush2.sessions
import farm.dialects.gopush2.tcp
import router.dialects.gopush2.config_file
from farm.dialects import Call, Subscribe
from farm.dialects.gopush2.sessions import BadParameter, wanted
from farm.dialects.gopush2.tcp import GOPUSH_TCP, HeartbeatReader
from farm.transports.request import Refusal
from fuzz.engine import Target
from fuzz.structures import check_problems, json_lines
from router.common import messages as m
from router.common.errors import MendableError
from router.common.token import Tokens
from router.dialects.gopush2.config_file import parse
from router.dialects.gopush2.protocol import CHANNELS, Gopush2Options, channel_address, deadline_value

_STATUSES: Final = (m.OK, m.OK, m.OK, m.FAILED)
_MAX_BYTES: Final = 300
_OPTIONS: Final = Gopush2Options()


def sessions(data: bytes) -> None:
    """Connections that come and say something."""
    query, *lines = data.split(b"\n")[:40]
    device = Device(query.decode("ascii", "replace"), max_subscriber_per_key=len(data) % 3)
    for line in lines:
        if device.closed is not None:
            assert device.closed.code in (1001, *range(4400, 4600))
            assert len(device.closed.reason.encode()) <= 123
            return
        what, _, rest = line.partition(b" ")
        number = int(rest[:3]) if rest[:3].isdigit() else 0
        status = _STATUSES[number % len(_STATUSES)]
        if what == b"!reply" and isinstance(device.open, Call):
            device.replied(status, number // 4 % 3, number)
        elif what == b"!log" and isinstance(device.open, Subscribe):
            full = device.wants().user is not None and number % 5 == 4
            events = [event(mid) for mid in range(number % 7, number % 11)]
            device.subscribed(m.FULL if full else status, None if number % 9 == 8 else events)
        elif what == b"!tick":
            assert device.tick(float(number)) >= 0
        elif what == b"!pass":
            device.clock.pass_by(float(number))
        elif device.open is None:
            device.said(line)
    for text in device.sent:
        assert text in (b"", b"h") or json.loads(text)["mid"] >= 0


def connections(data: bytes) -> None:
    """A command and what is behind it: the same whatever its cuts."""
    size, data = (data[0] % 16 + 1, data[1:]) if data else (1, b"")
    whole, cut = _command(data), None
    for end in range(0, len(data) + size, size):
        cut = _command(data[:end])
        if cut is not None:
            break
    assert cut == whole or (isinstance(cut, tuple) and isinstance(whole, tuple) and cut[0] == whole[0])
    if not isinstance(whole, tuple):
        return
    query, rest = whole
    try:
        wanted(query, _OPTIONS)
    except BadParameter as error:
        assert len(str(error)) <= 123
    reader = HeartbeatReader()
    heard = len(reader.feed(rest, size))
    while reader.more:
        heard += len(reader.feed(b"", size))
    assert heard == len(rest) - len(rest.lstrip(b"h"))
    assert (reader.error is None) == (heard == len(rest))


def _command(data: bytes) -> tuple[str, bytes] | str | None:
    """Query and rest; or why it is refused; or nothing yet."""
    try:
        found = GOPUSH_TCP.request(data, _MAX_BYTES, 64, 0)
    except Refusal as refusal:
        return refusal.text
    return None if found is None else (found[0].query, found[1])


SETTINGS: Final = ((Gopush2Options, {"admin_key": "k", "max_stored_message": 2, "max_message_bytes": 200}),)
REQUESTS: Final[tuple[list[Any], ...]] = (
    ["GET", "/ch", "key=a&token=t&admin_key=k", {}, ""],
    ["POST", "/pub", "key=a&mid=7&expire=60&admin_key=k", {}, "hello"],
    ["POST", "/pub", "key=a&expire=1", {"Authorization": "Bearer k"}, "\xff\0"],
    ["GET", "/stat", "type=subscriber&admin_key=k", {}, ""],
    ["GET", "/stat", "type=config&admin_key=k", {"X-Forwarded-For": "a"}, ""],
)


def prepare(rig: Rig, keys: Tokens) -> dict[bytes, str]:
    """A channel."""
    deadline = int(rig.clock.unix()) + 5
    rig.hub.core.records.put(CHANNELS, channel_address("a"), deadline_value(deadline), deadline)
    return {}


def config_file(data: bytes) -> None:
    """A configuration file of gopush2."""
    try:
        found = parse(data, "gopush2.conf")
    except MendableError as error:
        check_problems(error.problems)
    else:
        assert ("gopush2.conf", "dialects.gopush2", True) in found.settings
        if found.warnings:
            check_problems(found.warnings)


_FILES: Final = tuple(
    json.dumps(one).encode()
    for one in (
        {"addr": "localhost", "port": 8080, "admin_addr": "", "admin_port": 8080, "auth": 1, "log": "a", "debug": 0},
        {"addr": "[::1]:80", "ADMIN_ADDR": ":81", "protocol": 1, "log_level": 3, "channel_type": 2, "redis": {}},
        {"heartbeat_sec": None, "max_stored_message": "1", "x": [], "message_expire_sec": 1.5},
    )
)


_SESSIONS: Final = (
    b"key=a&mid=0&token=t\n!reply 0\n!log 10\nh\n\n!tick 0\n!pass 500\n!tick 0\n!reply 4",
    b"key=a&mid=-1&heartbeat=100\n!log 0\n!reply 1\n!log 1\n!tick 200",
    b"key=%E2%82%AC&mid=9007199254740992\n!log 4\n!reply 8",
    b"key=a&mid=0\n!reply 0\n!log 8\nx",
)
_COMMANDS: Final = (
    b"\x03*5\r\n$3\r\nsub\r\n$9\r\nTerry-Mao\r\n$1\r\n7\r\n$2\r\n30\r\n$4\r\ntest\r\nhhh",
    b"\x00*3\r\n$3\r\nsub\r\n$1\r\na\r\n$2\r\n-1\r\nhx",
    b"\x01*4\r\n$3\r\npub\r\n$0\r\n\r\n$1\r\n0\r\n$1\r\n0\r\n",
)

TARGETS = (
    Target(
        "gopush2",
        sessions,
        (farm.dialects.gopush2.sessions, farm.dialects.gopush2.dialect),
        _SESSIONS,
        (b"key=", b"mid=", b"heartbeat=", b"token=", b"&", b"\n!reply 0", b"\n!log 3", b"\n!tick 60", b"\nh"),
    ),
    Target(
        "gopush2-tcp",
        connections,
        (farm.dialects.gopush2.multibulk, farm.dialects.gopush2.tcp, farm.dialects.gopush2.sessions),
        _COMMANDS,
        (b"*3\r\n", b"$3\r\nsub\r\n", b"$1\r\n0\r\n", b"\r\n", b"h"),
    ),
    Target(
        "gopush2-config",
        config_file,
        (router.dialects.gopush2.config_file,),
        _FILES,
        (b'"addr"', b'"port"', b'"protocol"', b":80", b"null", b"[", b"1e400"),
        json_lines(),
    ),
)
