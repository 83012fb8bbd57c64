"""The devices that one worker has announced and whose inboxes have not been read yet: which ones are read next. Pure.

What waits in an inbox is older than a push that comes meanwhile, so the push is held back until the device has got
it; and such a device is read before those without a push.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

PartDone = Callable[[], None]
Part = tuple[list[bytes], PartDone | None]


class Unread:
    """Parts of announced devices, in order; those that a push waits for come first. One part is read at a time."""

    __slots__ = ("_parts", "_urged", "devices", "reading")

    def __init__(self) -> None:
        self.devices: set[bytes] = set()
        """Those that are unread, or are being read."""
        self._parts: deque[Part] = deque()
        self._urged: dict[bytes, None] = {}
        self.reading = False
        """Whether a part is being read."""

    @property
    def waiting(self) -> bool:
        """Whether there is a part to read."""
        return bool(self._urged or self._parts)

    def announce(self, devices: list[bytes], step: int, done: PartDone) -> None:
        """Read these, `step` at a time; `done` is called when all of them have been, whether it succeeded or not."""
        parts: list[Part] = [(devices[at : at + step], None) for at in range(0, len(devices), step)]
        parts[-1] = (parts[-1][0], done)
        self._parts.extend(parts)
        self.devices.update(devices)

    def urge(self, device: bytes) -> None:
        """A push waits for it."""
        self._urged[device] = None

    def drop(self, device: bytes) -> bool:
        """It has been read, or is not this worker's any more. Returns: whether it was still unread."""
        if device not in self.devices:
            return False
        self.devices.discard(device)
        self._urged.pop(device, None)
        return True

    def next_part(self, step: int) -> Part:
        """What to read now. A device that has been dropped may be among them."""
        if self._urged:
            return list(islice(self._urged, step)), None
        return self._parts.popleft()

    def failed(self, devices: list[bytes]) -> None:
        """They could not be read: they are read again later. Urged devices stay urged."""
        if again := [device for device in devices if device in self.devices and device not in self._urged]:
            self._parts.append((again, None))

    def clear(self) -> list[bytes]:
        """The worker's lease has ended. Returns: the devices that pushes wait for."""
        urged = list(self._urged)
        self.devices.clear()
        self._parts.clear()
        self._urged.clear()
        return urged
