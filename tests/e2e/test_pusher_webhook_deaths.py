"""Whatever was told by a webhook is followed by its opposite in the end, whoever dies."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from support.farm_fixture import Farm, running_farm, until
from support.pusher import APP, CRASH, Gone, clients, new_name
from support.pusher_webhook_site import site
from websocket import WebSocketException

EVENTS = ["channel_occupied", "channel_vacated", "member_added", "member_removed"]


def kill_one_worker_and_all_routers(farm: Farm) -> None:
    """At once."""
    pids = [row["pid"] for row in farm.status()["routers"]] + [farm.worker_pid(0)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(list(farm.events("process.died"))) >= len(pids), "the supervisor has seen it")
    farm.wait_healthy()


def test_what_was_told_has_its_end_though_a_worker_and_the_routers_die_at_once(tmp_path: Path) -> None:
    with site() as there:
        apps = tmp_path / "apps.json"
        apps.write_text(json.dumps({"applications": [APP | {"webhooks": [{"url": there.url, "events": EVENTS}]}]}))
        settings = CRASH | {"pusher.apps": apps, "pusher.webhook_hold": 0.5, "router.routers": 2}
        with running_farm(tmp_path / "data", settings) as farm, clients(farm, 2) as devices:
            room = new_name("presence-")
            channels = {device: [new_name() for _ in range(6)] for device in devices}
            for number, device in enumerate(devices):
                device.enter(room, f"user-{number}")
                for name in channels[device]:
                    device.subscribe(name)
                    until(lambda name=name: there.told(name) == ["channel_occupied"], "occupied")
                until(lambda user=device.user: there.told(room, user=user) == ["member_added"], "added")
            devices[0].expect("pusher_internal:member_added", room)
            kill_one_worker_and_all_routers(farm)
            devices[0].send("pusher:ping")
            try:
                found = devices[0].event()["event"]
            except (Gone, OSError, WebSocketException):
                found = ""
            dead, alive = devices if not found else devices[::-1]
            if not found:
                alive.send("pusher:ping")
                found = alive.event()["event"]
            # Before or behind the answer to the ping.
            assert {found, alive.event()["event"]} == {"pusher:pong", "pusher_internal:member_removed"}
            for name in channels[dead]:
                until(lambda name=name: there.told(name)[1:], "vacated")
                assert there.told(name) == ["channel_occupied", "channel_vacated"]
            until(lambda: there.told(room, user=dead.user)[1:], "removed")
            assert there.told(room, user=dead.user) == ["member_added", "member_removed"]
            late = new_name()
            alive.subscribe(late)
            until(lambda: there.told(late) == ["channel_occupied"], "what comes now is told")
            for name in channels[alive]:
                assert there.told(name) == ["channel_occupied"]
            assert there.told(room, user=alive.user) == ["member_added"]
            assert there.told(room)[:1] == ["channel_occupied"]
            assert "channel_vacated" not in there.told(room)
