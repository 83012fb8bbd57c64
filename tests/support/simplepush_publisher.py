"""An app server of SimplePush that goes on pushing while something is done to the farm or its store."""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress

from support.farm_fixture import until
from support.simplepush import put


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
