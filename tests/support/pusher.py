"""The two sides of Pusher for the end-to-end tests: devices on websocket-client, and signed requests by curl.

Signatures are made here with hmac: nothing of the farm's own code is on this side.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import pytest
import websocket

from support.dialects import Close
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, Json, curl, until

KEY = "278d425bdf160c739803"
SECRET = "7ad3773142a6692b25b8"
APP = {"id": 3, "name": "shop", "key": KEY, "secret": SECRET, "client_messages": True, "watchlists": True}
OTHER = {"name": "other", "key": "other-key", "secret": "other-secret"}
SHUT = {"name": "shut", "key": "shut-key", "secret": "shut-secret", "enabled": False}
STRICT = {"name": "strict", "key": "strict-key", "secret": "strict-secret", "authorized_connections": True}
CRASH = {"link.lease": 2, "farm.restart_max": 0.1}


def with_apps(folder: Path, **settings: Any) -> Json:
    """Settings of a farm with these applications."""
    file = folder / "apps.json"
    file.write_text(json.dumps({"applications": [APP, OTHER, SHUT, STRICT]}))
    return {"pusher.apps": file} | {name.replace("__", "."): value for name, value in settings.items()}


def signed(text: str, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def call(farm: Farm, method: str, path: str, body: Json | None = None, **query: str) -> HttpAnswer:
    """A signed request of application 3's server."""
    data = b"" if body is None else json.dumps(body).encode()
    query |= {"auth_key": KEY, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
    if data:
        query["body_md5"] = hashlib.md5(data).hexdigest()
    path = f"/apps/3{path}"
    text = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
    query["auth_signature"] = signed(f"{method}\n{path}\n{text}")
    url = farm.url(path) + "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())
    sent = ["--data-binary", "@-", "--header", "Content-Type: application/json"] if data else []
    return curl("--request", method, *sent, url, stdin=data)


def trigger(farm: Farm, channels: str | list[str], name: str, data: Any, **more: str) -> None:
    """Send an event."""
    channels = [channels] if isinstance(channels, str) else channels
    answer = call(farm, "POST", "/events", {"name": name, "channels": channels, "data": json.dumps(data)} | more)
    assert (answer.status, answer.json()) == (200, {}), answer


class Gone(Exception):
    """The server has closed the connection, with this code; 0: without a close frame."""


class Client:
    """A device on websocket-client, which blocks."""

    def __init__(
        self,
        farm: Farm,
        key: str = KEY,
        query: str = "protocol=7&client=test&version=1",
        receive_buffer: int = 0,
        cookie: str | None = None,
    ) -> None:
        self.key = key
        options = ((socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer),) if receive_buffer else ()
        url = f"{farm.device_url}app/{key}?{query}"
        self.socket = websocket.create_connection(url, timeout=PATIENCE_S, sockopt=options, cookie=cookie)
        self.user = ""
        self.greeting = self.event()
        self.socket_id: str = ""
        if self.greeting["event"] == "pusher:connection_established":
            self.socket_id = self.greeting["data"]["socket_id"]

    @property
    def shard(self) -> str:
        """The same for all connections of one worker."""
        return self.socket_id.partition(".")[0]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close, and wait for the server's close frame."""
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()

    def send(self, event: str, data: Any = None, channel: str = "") -> None:
        said = {"event": event, "data": data}
        self.socket.send(json.dumps(said | {"channel": channel} if channel else said))

    def event(self) -> Any:
        """The next event, its data decoded. Raises: Gone."""
        opcode, payload = self.socket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Gone(struct.unpack(">H", payload[:2])[0] if payload else 0)
        assert opcode == websocket.ABNF.OPCODE_TEXT
        found = json.loads(payload)
        if isinstance(found.get("data"), str):
            found["data"] = json.loads(found["data"])
        return found

    def expect(self, event: str, channel: str | None = None) -> Any:
        """The data of the next event, which must be this one."""
        found = self.event()
        assert (found["event"], found.get("channel")) == (event, channel), found
        return found.get("data")

    def code(self) -> int:
        """Of the close, which must be what comes next."""
        with pytest.raises(Gone) as gone:
            print("instead of a close:", self.event())
        code: int = gone.value.args[0]
        return code

    def subscribe(self, channel: str, channel_data: str | None = None, secret: str = SECRET) -> Any:
        """Subscribe, with a signature where it needs one. Returns: what the success brings."""
        said = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            parts = [self.socket_id, channel] + ([] if channel_data is None else [channel_data])
            said["auth"] = f"{self.key}:{signed(':'.join(parts), secret)}"
            if channel_data is not None:
                said["channel_data"] = channel_data
        self.send("pusher:subscribe", said)
        return self.expect("pusher_internal:subscription_succeeded", channel)

    def enter(self, channel: str, user: str) -> list[str]:
        """Subscribe to a presence channel. Returns: its members."""
        self.user = user
        data = json.dumps({"user_id": user, "user_info": {"name": user.title()}})
        presence = self.subscribe(channel, data)["presence"]
        assert presence["count"] == len(presence["ids"])
        assert presence["hash"] == {name: {"name": name.title()} for name in presence["ids"]}
        return sorted(presence["ids"])

    def sign_in(self, user: str, **more: Any) -> None:
        data = json.dumps({"id": user} | more)
        self.send("pusher:signin", {"auth": f"{KEY}:{signed(f'{self.socket_id}::user::{data}')}", "user_data": data})
        assert self.expect("pusher:signin_success") == {"user_data": data}


C = TypeVar("C", bound=Client)


@contextmanager
def clients(farm: Farm, count: int, key: str = KEY) -> Iterator[list[Client]]:
    """So many devices, which are not all on one shard; those of the first one's shard come first."""
    with contextlib.ExitStack() as stack:
        found: list[Client] = []

        def enough() -> bool:
            found.append(Client(farm, key))
            stack.callback(drop, found[-1])
            return len(found) >= count and len({client.shard for client in found}) > 1

        until(enough, "devices on two shards")
        one = [client for client in found if client.shard == found[0].shard]
        other = [client for client in found if client.shard != found[0].shard]
        chosen = one[: max(1, count - len(other))]
        yield chosen + other[: count - len(chosen)]


def drop(client: Client) -> None:
    client.socket.shutdown()


def new_name(prefix: str = "") -> str:
    return f"{prefix}{uuid.uuid4().hex}"


def nothing_before_now(farm: Farm, channel: str, *subscribers: Client) -> None:
    """That none of these receives anything more of what has happened in this channel."""
    mark = new_name()
    trigger(farm, channel, "mark", mark)
    for client in subscribers:
        assert client.expect("mark", channel) == mark


def members(farm: Farm, channel: str) -> list[str]:
    """As app servers are told."""
    answer = call(farm, "GET", f"/channels/{channel}/users")
    assert answer.status == 200, answer
    return sorted(user["id"] for user in answer.json()["users"])


def subscribers(farm: Farm, channel: str) -> int:
    """As app servers are told."""
    answer = call(farm, "GET", f"/channels/{channel}", info="subscription_count")
    assert answer.status == 200, answer
    count: int = answer.json()["subscription_count"]
    return count


def router_is_another(farm: Farm) -> None:
    """Wait for the router that follows on one that was killed."""
    until(lambda: list(farm.events("process.died")), "the supervisor has seen it")
    farm.wait_healthy()


def settings(folder: Path) -> Json:
    """As `support.dialects` has it."""
    return with_apps(folder)


CLOSES: Final = [
    Close("app/nobody?protocol=7", None, 4001),
    Close(f"app/{KEY}?protocol=7", None, None, on_reload=True),
]


@contextmanager
def reached(farm: Farm) -> Iterator[Callable[[], None]]:
    """As `support.dialects` has it."""
    with Client(farm) as client:
        channel = new_name()
        client.subscribe(channel)
        yield lambda: nothing_before_now(farm, channel, client)
