"""Drives a stock Chromium, headless, over its DevTools protocol."""

from __future__ import annotations

import json
import os
import re
from typing import Any, ClassVar, Final, Self

from support.browser import Browser, BrowserError, Scripts, as_json
from support.installed import find_program

# Chromium keeps to itself and finds nothing but this machine: no updates, no first-run pages, no look-ups. Pages that
# are not in front run as fast as the one that is.
_FLAGS: Final = (
    "--headless",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-renderer-backgrounding",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--password-store=basic",
    # As root, and in most containers, its sandbox cannot be set up, and /dev/shm is small. The pages are our own.
    "--no-sandbox",
    "--disable-dev-shm-usage",
)


def find_chromium() -> str:
    """The program: $CHROMIUM or chromium."""
    return find_program(os.environ.get("CHROMIUM", ""), "chromium")


class Chromium(Browser):
    """One Chromium; its tabs are opened by `Tab`."""

    name: ClassVar = "Chromium"
    address: ClassVar = re.compile(r"DevTools listening on (ws://\S+)")
    close: ClassVar = "Browser.close"

    def command_line(self) -> list[str]:
        ours = [f"--user-data-dir={self.profile}", "--remote-debugging-port=0"]
        return [self.program, *_FLAGS, *ours, "about:blank"]

    def opened(self) -> None:
        """Nothing to do: every tab is opened for its test."""

    def command(self, method: str, **params: Any) -> Any:
        return self.command_to("", method, **params)

    def command_to(self, session: str, method: str, **params: Any) -> Any:
        """One command to a tab, or to the browser if the session is empty. Returns and raises as `command`."""
        answer = self.exchange({"method": method, "params": params} | ({"sessionId": session} if session else {}))
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]


class Tab(Scripts):
    """A tab with cookies and storage of its own, as if it were another user's."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self._context = chromium.command("Target.createBrowserContext")["browserContextId"]
        created = chromium.command("Target.createTarget", url="about:blank", browserContextId=self._context)
        self._target = created["targetId"]
        attached = chromium.command("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resize(self, width: int, height: int) -> None:
        """Make the page so large, in pixels of CSS."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._chromium.command_to(self._session, "Emulation.setDeviceMetricsOverride", **size)

    def open(self, url: str) -> None:
        """Go to a page; returns when it has loaded."""
        gone = self._chromium.command_to(self._session, "Page.navigate", url=url)
        if gone.get("errorText"):
            raise BrowserError(f"{url}: {gone['errorText']}")
        self.evaluate(
            "new Promise((loaded) => document.readyState === 'complete' ? loaded() : addEventListener('load', loaded))"
            ".then(() => null)"
        )

    def evaluate(self, expression: str) -> Any:
        result = self._chromium.command_to(
            self._session, "Runtime.evaluate", expression=as_json(expression), awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        value = result["result"].get("value")
        return None if value is None else json.loads(value)

    def close(self) -> None:
        """Close it as its user does, if it has not been."""
        if self._open:
            self._open = False
            self._chromium.command("Target.closeTarget", targetId=self._target)
            self._chromium.command("Target.disposeBrowserContext", browserContextId=self._context)
