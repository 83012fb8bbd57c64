"""A browser that a test drives, headless, over a WebSocket that the browser itself opens: no driver program."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import websocket

from support.farm_fixture import PATIENCE_S, until

_START_S: Final = 90.0
_STOP_S: Final = 20.0
_ANSWER_S: Final = 45.0
"""How long one command may take; Firefox itself gives up on a push server after 10 to 20 s."""
_LOG_TAIL: Final = 60


class BrowserError(Exception):
    """The browser refused a command, or a script threw."""


class Scripts(ABC):
    """A page in which JavaScript can be run."""

    @abstractmethod
    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise, as JSON carries it.

        Raises: BrowserError if it throws or the promise is rejected.
        """

    def call(self, function: str, *arguments: object) -> Any:
        """Call a function of the page with arguments that JSON carries. Returns and raises as `evaluate`."""
        return self.evaluate(f"{function}({', '.join(map(json.dumps, arguments))})")


def as_json(expression: str) -> str:
    """An expression for the promise of another one's value as JSON text."""
    return f"(async () => JSON.stringify(await ({expression})))()"


class Browser(ABC):
    """One browser with a profile of its own, which outlives a stop and start."""

    name: ClassVar[str]
    address: ClassVar[re.Pattern[str]]
    """How it prints where it takes commands."""
    path: ClassVar = ""
    """What comes behind that."""
    close: ClassVar[str]
    """The command that closes it."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.profile = folder / "profile"
        self._home = folder / "home"
        self._log = folder / f"{self.name.lower()}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: websocket.WebSocket | None = None
        self._numbers = itertools.count(1)
        self._log_from = 0
        self._home.mkdir(parents=True)
        self.profile.mkdir()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def command_line(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def command(self, method: str, **params: Any) -> Any:
        """One command. Returns: its result.

        Raises: BrowserError.
        """

    @abstractmethod
    def opened(self) -> None:
        """It takes commands now: make it ready for the test."""

    # ------------------------------------------------------------------ start and stop

    def start(self) -> None:
        """Start, and wait until it takes commands."""
        self._log_from = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command_line(),
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            address = until(self._address, f"{self.name} takes commands", _START_S)
            # A connection with an Origin is taken for one from a web page.
            self._socket = websocket.create_connection(address + self.path, timeout=_ANSWER_S, suppress_origin=True)
            self.opened()
        except BaseException:
            self.stop()
            print(self.log_tail())
            raise

    def stop(self) -> None:
        """Close it as its user does. What has not gone then gets SIGTERM (it ends at once, saving nothing); then
        SIGKILL.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        if self._socket is not None:
            with suppress(BrowserError, OSError, websocket.WebSocketException):
                self.command(self.close)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            self._socket.shutdown()
            self._socket = None
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
        with suppress(ProcessLookupError):  # its content processes are of its session and group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)

    def environ(self) -> dict[str, str]:
        """Its environment: nothing of the user's desktop, a home of its own."""
        left_out = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")
        clean = {name: value for name, value in os.environ.items() if name not in left_out}
        return clean | {"HOME": str(self._home)}

    def _address(self) -> str | None:
        assert self._process is not None and self._process.poll() is None, f"{self.name} ended:\n{self.log_tail()}"
        with self._log.open("rb") as log:
            log.seek(self._log_from)
            found = self.address.search(log.read().decode(errors="replace"))
        return found[1] if found else None

    def log_tail(self) -> str:
        """The end of what it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])

    # ------------------------------------------------------------------ commands

    def exchange(self, message: dict[str, Any]) -> Any:
        """Send one message, to which a number is added. Returns: the answer with that number."""
        assert self._socket is not None
        number = next(self._numbers)
        self._socket.send(json.dumps(message | {"id": number}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                return answer  # anything else is an event
