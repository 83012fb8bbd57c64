"""Webhooks of a whole farm, received by a real HTTP server and verified by PyPI `pusher`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from pusher import Pusher
from support.farm_fixture import running_farm, until
from support.pusher_sdk import APP, Device, allowed, library
from support.pusher_webhook_site import Site, site

from router.dialects.pusher.applications import WEBHOOK_EVENTS


def heard(there: Site) -> list[dict[str, Any]]:
    """Every event received so far; the library must accept the signature of each request."""
    events = []
    for headers, body in list(there.requests):
        one = Pusher("3", APP["key"], APP["secret"]).validate_webhook(
            headers["X-Pusher-Key"], headers["X-Pusher-Signature"], body
        )
        assert one is not None
        events += one["events"]
    return events


def test_what_happens_on_two_workers_and_over_a_router_s_death(tmp_path: Path) -> None:
    with site() as there:
        apps = tmp_path / "apps.json"
        hook = {"url": there.url, "events": sorted(set(WEBHOOK_EVENTS) - {"subscription_count"})}
        apps.write_text(json.dumps({"applications": [APP | {"client_messages": True, "webhooks": [hook]}]}))
        settings = {"pusher.apps": apps, "pusher.webhook_hold": 0.5, "farm.restart_max": 0.1}
        with running_farm(tmp_path / "data", settings) as farm:
            server = library(farm)
            room = "presence-room"

            def told(**event: Any) -> int:
                return heard(there).count(event)

            with Device(farm) as jim:
                jim.subscribe(room, **allowed(server, jim, room, {"user_id": "jim"}))
                jim.subscribe("cache-rates")
                jim.hear("pusher:cache_miss")
                jim._socket.send(json.dumps({"event": "client-x", "channel": room, "data": {"a": 1}}))
                until(lambda: told(name="member_added", channel=room, user_id="jim"), "member_added")
                until(lambda: told(name="cache_miss", channel="cache-rates"), "cache_miss")
                said = {"event": "client-x", "data": '{"a": 1}', "socket_id": jim.id, "user_id": "jim"}
                until(lambda: told(name="client_event", channel=room, **said), "client_event")
                # What cannot be sent now is sent by the router's successor.
                there.answers = [500] * 3
                with Device(farm) as joe:
                    joe.subscribe("public")
                    before = len(there.requests)
                    until(lambda: len(there.requests) > before, "a first try")
                    os.kill(farm.router_pid(), signal.SIGKILL)
                    farm.wait_healthy()
                    until(lambda: not there.answers, "tried again")
                    until(lambda: told(name="channel_occupied", channel="public") >= 4, "taken")
            until(lambda: told(name="member_removed", channel=room, user_id="jim"), "member_removed")
            until(lambda: told(name="channel_vacated", channel=room), "channel_vacated")
            assert told(name="member_added", channel=room, user_id="jim") == 1
            until(lambda: farm.status()["routers"][0]["webhooks_sent"] > 0, "they are counted")
            until(lambda: farm.status()["routers"][0]["webhooks_waiting"] == 0, "none waits")
            assert farm.status()["routers"][0]["webhooks_dropped"] == 0
