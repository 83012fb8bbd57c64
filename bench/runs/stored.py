"""What devices and messages take of the memory of a store's servers, over a run."""

from typing import Any

from bench.store_servers.running import StoreServers


class Stored:
    """Reads the server when it is made, before there is a device; then at `set_up` and at `pushed`."""

    def __init__(self, servers: StoreServers | None) -> None:
        self._servers = servers
        self._devices = 0
        self._readings = [self._read()]

    def _read(self) -> dict[str, Any] | None:
        return self._servers.memory() if self._servers is not None else None

    def set_up(self, devices: int) -> None:
        """So many devices have registered."""
        self._devices = devices
        self._readings.append(self._read())

    def pushed(self) -> None:
        """What was pushed to devices that are away waits there."""
        self._readings.append(self._read())

    def fields(self, waiting: int) -> dict[str, Any]:
        """For JSON; bytes of one copy, None where they are not known. waiting: messages that wait for devices."""
        assert self._servers is not None
        empty, registered, full = self._readings
        return self._servers.fields() | {
            "devices": self._devices,
            "empty": empty,
            "registered": registered,
            "full": full,
            "a_device": _each(empty, registered, self._devices),
            "waiting": waiting,
            "a_message": _each(registered, full, waiting),
        }


def _each(before: dict[str, Any] | None, after: dict[str, Any] | None, count: int) -> float | None:
    if before is None or after is None or not count:
        return None
    return float(max(0, after["bytes"] - before["bytes"]) / count)
