"""The hosts of a cluster are replaced one after the other behind HAProxy, as docs/operation.md says: nothing that was
accepted is missing, and no app server is refused."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import websocket
from support.farm_fixture import SOON_S, Farm, Raw, until
from support.haproxy import HAProxy, running_haproxy
from support.hosts import across, running_hosts
from support.simplepush import Device

DEVICES = 6
SETTINGS = {
    "drain.notice": 600,  # the test ends it, when HAProxy has noticed
    "drain.rate": 40,
    "worker.close_timeout": 600,
    "link.forward_timeout": 30,  # so that no request gives up on a slow machine before a router has moved
}
_ENDED = (OSError, AssertionError, ValueError, websocket.WebSocketException)  # an end is no JSON


class Follower(threading.Thread):
    """A device that comes back when it is let go."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(daemon=True)
        self._farm = farm
        self._uaid = ""
        self.channel = self.path = ""
        self.newest = 0
        self.connects = 0
        self.leaving = False

    def run(self) -> None:
        while not self.leaving:
            try:
                with Device(self._farm) as device:
                    self._follow(device)
            except _ENDED:  # what was missed shows in the end
                continue

    def _follow(self, device: Device) -> None:
        device.hello(self._uaid, (self.channel,) if self.channel else ())
        self._uaid = device.uaid
        if not self.channel:
            self.channel, endpoint = device.register()
            self.path = urlsplit(endpoint).path
        self.connects += 1
        while not self.leaving:
            for channel, version in device.updates():
                device.ack((channel, version))
                self.newest = max(self.newest, version)


class Publisher(threading.Thread):
    """An app server that pushes to one device after the other, each time over a new connection to the balancer."""

    def __init__(self, port: int, devices: list[Follower]) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._devices = devices
        self.answers: set[object] = set()
        self.accepted: dict[str, int] = {}
        self.leaving = False

    def run(self) -> None:
        for version in count(1):
            for device in self._devices:
                if self.leaving:
                    return
                body = b"version=%d" % version
                head = f"PUT {device.path} HTTP/1.1\r\nHost: push\r\nContent-Length: {len(body)}\r\n\r\n"
                try:
                    with Raw(self._port) as raw:
                        raw.socket.settimeout(SOON_S)
                        raw.send(head.encode() + body)
                        (answer,) = raw.answers(1)
                except Exception as error:
                    self.answers.add(repr(error))
                    continue
                self.answers.add(answer.status)
                if answer.status in (200, 202):
                    self.accepted[device.channel] = version


@contextmanager
def traffic(farm: Farm) -> Iterator[tuple[list[Follower], Publisher]]:
    """Through the balancer, which is what this has in the place of a host."""
    devices = [Follower(farm) for _ in range(DEVICES)]
    for device in devices:
        device.start()
    until(lambda: all(device.connects for device in devices), "all are connected")
    publisher = Publisher(farm.router_port, devices)
    publisher.start()
    try:
        yield devices, publisher
    finally:
        publisher.leaving = True
        publisher.join(SOON_S)
        for device in devices:
            device.leaving = True


def replace(host: Farm, other: str, balancer: HAProxy) -> None:
    """Take it out, and in again."""
    os.kill(host.pid, signal.SIGTERM)
    until(lambda: balancer.up() == balancer.up("app_servers") == [other], "HAProxy has noticed")
    os.kill(host.pid, signal.SIGTERM)
    assert host.wait_ended() == 0
    host.start()


def test_a_rolling_deploy_of_a_cluster(tmp_path: Path) -> None:
    with running_hosts(tmp_path, 2, 4, SETTINGS) as hosts, running_haproxy(hosts.each) as balancer:
        a, b = hosts.each
        until(lambda: balancer.up() == ["a", "b"], "both take devices")
        front = across(devices=a, app_servers=a)
        front.device_port, front.router_port = balancer.device_port, balancer.router_port
        with traffic(front) as (devices, publisher):
            for host, name in ((a, "b"), (b, "a")):
                replace(host, name, balancer)
                hosts.wait_divided()
                until(lambda: balancer.up() == ["a", "b"], "it takes devices again")
            publisher.leaving = True
            publisher.join(SOON_S)
            newest = {device.channel: device for device in devices}
            assert publisher.accepted.keys() == newest.keys()
            for channel, version in publisher.accepted.items():
                until(lambda one=newest[channel], last=version: one.newest >= last, "it came")  # type: ignore[misc]
            assert publisher.answers <= {200, 202}
            assert sum(device.connects for device in devices) >= 2 * DEVICES
        for host in hosts.each:  # so that the next signal ends it at once
            os.kill(host.pid, signal.SIGTERM)
            until(lambda host=host: host.status()["drain"], "it is about to stop")  # type: ignore[misc]
