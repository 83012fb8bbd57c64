"""A device of Pusher at a worker's sockets, which checks what it is sent."""

from __future__ import annotations

import json
from typing import Any

from support.pusher_app import APP, KEY
from support.pusher_device import socket_signature
from support.shard import Shard
from support.shard_client import ShardClient

PRESENCE = "presence-"
"""So begin the names of channels with members."""


class Client(ShardClient):
    """Its connection."""

    def __init__(self, shard: Shard, user: str) -> None:
        self.user = user
        super().__init__(shard, f"/app/{KEY}?protocol=7&client=js&version=8.6.0&flash=false")
        self.socket_id = ""
        self.asked: set[str] = set()
        self.joined: dict[str, set[str]] = {}  # channels, with their members as it was told
        self.joins = 0  # subscriptions so far
        self.since: dict[str, int] = {}  # of each channel, its number
        self.had: set[int] = set()
        self.receive()

    def _send(self, event: str, **data: Any) -> None:
        self._socket.send(json.dumps({"event": event, "data": data}))

    def subscribe(self, channel: str) -> None:
        if channel in self.asked or not self.socket_id:
            return
        self.asked.add(channel)
        if not channel.startswith(PRESENCE):
            self._send("pusher:subscribe", channel=channel)
            return
        data = json.dumps({"user_id": self.user})
        signature = socket_signature(APP["secret"], self.socket_id, channel, data)
        self._send("pusher:subscribe", channel=channel, auth=f"{KEY}:{signature}", channel_data=data)

    def unsubscribe(self, channel: str) -> None:
        if channel in self.joined:
            self.asked.discard(channel)
            del self.joined[channel]
            self._send("pusher:unsubscribe", channel=channel)

    def go(self) -> None:
        super().go()
        self.joined.clear()

    def _told(self, told: dict[str, Any]) -> None:
        self._event(told["event"], told.get("channel", ""), told.get("data"))

    def _event(self, event: str, channel: str, data: Any) -> None:
        if event == "pusher:connection_established":
            self.socket_id = json.loads(data)["socket_id"]
            return
        assert event in (
            "pusher_internal:subscription_succeeded",
            "pusher_internal:member_added",
            "pusher_internal:member_removed",
            "news",
        ), (event, data)
        found = json.loads(data) if isinstance(data, str) else data
        if event == "pusher_internal:subscription_succeeded":
            if channel in self.asked:
                assert channel not in self.joined
                self.joins = self.since[channel] = self.joins + 1
                self.joined[channel] = set(found["presence"]["ids"]) if found else set()
        elif channel not in self.joined:
            return  # it has gone meanwhile
        elif event == "news":
            assert found not in self.had, f"event {found} came twice on one connection"
            self.had.add(found)
        elif event == "pusher_internal:member_added":
            assert found["user_id"] not in self.joined[channel], f"{found} was added twice"
            self.joined[channel].add(found["user_id"])
        else:
            assert found["user_id"] != self.user
            assert found["user_id"] in self.joined[channel], f"{found} was removed twice, or never added"
            self.joined[channel].discard(found["user_id"])
