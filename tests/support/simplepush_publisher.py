"""An app server of SimplePush that goes on pushing while something is done to the farm or its store."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from support.farm_fixture import Farm, until
from support.simplepush import Device, put


class Publisher:
    """An app server that pushes to devices in turn, each version once, and knows what was accepted."""

    def __init__(self, endpoints: dict[str, str]) -> None:
        self.accepted: dict[str, int] = {}
        self._endpoints = endpoints
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def more_accepted(self) -> None:
        """Wait until a push that is sent from now on has been accepted on every channel."""
        before = {channel: self.accepted.get(channel, 0) + 1 for channel in self._endpoints}  # one is on its way
        until(
            lambda: all(self.accepted.get(channel, 0) > version for channel, version in before.items()),
            "pushes are accepted",
        )

    def _run(self) -> None:
        version = 0
        while not self._stop.is_set():
            version += 1
            for channel, endpoint in self._endpoints.items():
                with suppress(subprocess.CalledProcessError):  # the router died before it answered
                    if put(endpoint, version, "--max-time", "5") in (200, 202):
                        self.accepted[channel] = version


@contextmanager
def nothing_missing(farm: Farm, number: int, stay: bool) -> Iterator[Publisher]:
    """So many devices that are pushed to. At the end each comes back, and has the newest that was accepted. stay:
    whether they are connected meanwhile."""
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(farm)) for _ in range(number)]
        channels = []
        for device in devices:
            device.hello()
            channels.append(device.register())
        if not stay:
            stack.close()
        with Publisher(dict(channels)) as publisher:
            yield publisher
        for device, (channel, _) in zip(devices, channels, strict=True):
            with Device(farm) as back:
                back.hello(device.uaid, (channel,))
                ((_, version),) = back.updates()
                # What was refused may be there too.
                assert version >= publisher.accepted[channel]
