"""Drives a stock Firefox, headless, over WebDriver BiDi: a WebSocket that Firefox itself opens; no geckodriver."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
import websocket
from farm_fixture import PATIENCE_S, ROOT, until

START_S: Final = 90.0
STOP_S: Final = 20.0
ANSWER_S: Final = 45.0
"""How long one command may take; Firefox itself gives up on a push server after 10 to 20 s."""
_LOG_TAIL: Final = 60
_ADDRESS: Final = re.compile(r"WebDriver BiDi listening on (ws://\S+)")

Pref = bool | int | str

# Firefox keeps to itself: no updates, no telemetry, no first-run pages, no look-ups.
_QUIET: Final[dict[str, Pref]] = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "browser.contentblocking.introCount": 99,
    "browser.newtabpage.enabled": False,
    "browser.region.network.url": "",
    "browser.region.update.enabled": False,
    "browser.safebrowsing.blockedURIs.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "browser.sessionstore.resume_from_crash": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage": "about:blank",
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "browser.topsites.contile.enabled": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "messaging-system.rsexperimentloader.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "network.prefetch-next": False,
    "network.proxy.type": 0,
    "network.trr.mode": 5,
    "security.OCSP.enabled": 0,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "signon.autofillForms": False,
    "startup.homepage_welcome_url": "",
    "toolkit.startup.max_resumed_crashes": -1,
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "toolkit.telemetry.server": "",
}


def push_prefs(device_url: str) -> dict[str, Pref]:
    """What points Firefox at a push server, and what keeps a browser without a user from asking one.

    The first three are what a user sets (enabled and connection.enabled are the defaults, but a browser that is driven
    turns the connection off unless the profile says otherwise). Everything else of push is as Firefox ships it.
    """
    return {
        "dom.push.enabled": True,
        "dom.push.connection.enabled": True,
        "dom.push.testing.allowInsecureServerURL": True,
        "dom.push.serverURL": device_url,
        "dom.push.testing.ignorePermission": True,
        "permissions.default.desktop-notification": 1,
        # A push without a notification that a user can see costs quota.
        "dom.push.maxQuotaPerSubscription": 1000,
    }


def missing(what: str) -> NoReturn:
    """Skip the test, for want of something; with CI=true fail it."""
    reasons = ROOT / ".venv" / ".missing-for-tests"
    why = reasons.read_text().strip() if reasons.exists() else ""
    text = why or f"browser tests: {what} not found; make test installs it where it is root"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def find_firefox() -> str:
    """The program: $FIREFOX, firefox-esr or firefox."""
    for name in (os.environ.get("FIREFOX", ""), "firefox-esr", "firefox"):
        if name and (path := shutil.which(name)):
            return path
    missing("firefox-esr")


class FirefoxError(Exception):
    """Firefox refused a command, or a script threw."""


class Firefox:
    """One Firefox with a profile of its own, which outlives a stop and start."""

    def __init__(self, program: str, folder: Path, prefs: Mapping[str, Pref]) -> None:
        self._program = program
        self._home = folder / "home"
        self._profile = folder / "profile"
        self._log = folder / "firefox.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: websocket.WebSocket | None = None
        self._numbers = itertools.count(1)
        self._context = ""
        self._log_from = 0
        self._home.mkdir(parents=True)
        self._profile.mkdir()
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in (_QUIET | prefs).items()]
        (self._profile / "user.js").write_text("".join(lines))

    def __enter__(self) -> Firefox:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------------ start and stop

    def start(self) -> None:
        """Start, and wait until it takes commands."""
        self._log_from = self._log.stat().st_size if self._log.exists() else 0
        command = [self._program, "--headless", "--new-instance", "--no-remote", "--profile", str(self._profile)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--remote-debugging-port", "0", "about:blank"],
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            address = until(self._address, "Firefox listens for WebDriver BiDi", START_S)
            # Firefox takes a connection with an Origin for one from a web page.
            self._socket = websocket.create_connection(f"{address}/session", timeout=ANSWER_S, suppress_origin=True)
            self.command("session.new", capabilities={})
            self._context = self.command("browsingContext.getTree")["contexts"][0]["context"]
        except BaseException:
            self.stop()
            print(self.log_tail())
            raise

    def stop(self) -> None:
        """Close it as its user does. What has not gone then gets SIGTERM (Firefox ends at once, saving nothing); then
        SIGKILL.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        if self._socket is not None:
            with suppress(FirefoxError, OSError, websocket.WebSocketException):
                self.command("browser.close")
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            self._socket.shutdown()
            self._socket = None
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        with suppress(ProcessLookupError):  # its content processes are of its session and group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)

    def _environ(self) -> dict[str, str]:
        left_out = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")
        clean = {name: value for name, value in os.environ.items() if name not in left_out}
        # Firefox does not start as root in somebody else's home.
        return clean | {"HOME": str(self._home), "MOZ_HEADLESS": "1", "MOZ_CRASHREPORTER_DISABLE": "1"}

    def _address(self) -> str | None:
        assert self._process is not None and self._process.poll() is None, f"Firefox ended:\n{self.log_tail()}"
        with self._log.open("rb") as log:
            log.seek(self._log_from)
            found = _ADDRESS.search(log.read().decode(errors="replace"))
        return found[1] if found else None

    def log_tail(self) -> str:
        """The end of what it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])

    # ------------------------------------------------------------------ commands

    def command(self, method: str, **params: Any) -> Any:
        """One BiDi command. Returns: its result.

        Raises: FirefoxError.
        """
        assert self._socket is not None
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") != number:
                continue  # an event
            if message["type"] != "success":
                raise FirefoxError(f"{method}: {message['error']}: {message['message']}")
            return message["result"]

    def open(self, url: str) -> None:
        """Go to a page, in the one tab; returns when it has loaded."""
        self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise, as JSON carries it.

        Raises: FirefoxError if it throws or the promise is rejected.
        """
        result = self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] != "success":
            raise FirefoxError(f"{expression}: {result['exceptionDetails']['text']}")
        value = result["result"].get("value")
        return None if value is None else json.loads(value)

    def call(self, function: str, *arguments: object) -> Any:
        """Call a function of the page with arguments that JSON carries. Returns and raises as `evaluate`."""
        return self.evaluate(f"{function}({', '.join(map(json.dumps, arguments))})")
