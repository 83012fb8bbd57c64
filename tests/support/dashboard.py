"""The dashboard in a tab of Chromium, seen and used as its user does."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

from support.chromium import Chromium, Tab
from support.farm_fixture import Farm, until

_MOST_TABS: Final = 60
_KEYS: Final = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "Home": 36, "/": 191}


class Dashboard(Tab):
    """One tab. Its errors, and what it was not allowed to load, are remembered by the page itself."""

    def __init__(self, chromium: Chromium, farm: Farm, token: str) -> None:
        super().__init__(chromium)
        self._url = f"http://operator:{token}@127.0.0.1:{farm.admin_port}/"
        self._command("Page.enable")
        self._command(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.faults = [];"
            "addEventListener('error', (event) => faults.push(String(event.message)));"
            "addEventListener('unhandledrejection', (event) => faults.push(String(event.reason)));"
            "addEventListener('securitypolicyviolation', (event) => faults.push(event.violatedDirective));",
        )

    def _command(self, method: str, **params: Any) -> Any:
        return self._chromium.command_to(self._session, method, **params)

    def go(self, view: str) -> None:
        """To a view, by its address."""
        if self.evaluate("location.protocol") == "http:":
            self.evaluate(f"void (location.hash = '#/{view}')")
        else:
            self.open(f"{self._url}#/{view}")

    @property
    def text(self) -> str:
        """What can be seen."""
        found: str = self.evaluate("document.body.innerText")
        return found

    def sees(self, *texts: str) -> None:
        """Wait until all of these can be seen."""
        for text in texts:
            until(lambda text=text: text in self.text, f"{text} on the page, which has: {self.text}")

    @property
    def buttons(self) -> list[str]:
        """The names of all buttons that can be seen."""
        found: list[str] = self.evaluate(
            "[...document.querySelectorAll('button')].filter((one) => one.checkVisibility())"
            ".map((one) => one.getAttribute('aria-label') || one.textContent)"
        )
        return found

    @property
    def faults(self) -> list[str]:
        """What went wrong in the page, or was not allowed."""
        found: list[str] = self.evaluate("faults")
        return found

    def cut_off(self, off: bool) -> None:
        """Whether the network is away."""
        self._command("Network.enable")
        self._command(
            "Network.emulateNetworkConditions", offline=off, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    # ------------------------------------------------------------------ keyboard

    def press(self, key: str, shift: bool = False) -> None:
        """One key."""
        text = {"Enter": "\r", "/": "/"}.get(key, "")
        of = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key], "modifiers": 8 if shift else 0}
        self._command("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **of)
        self._command("Input.dispatchKeyEvent", type="keyUp", **of)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self._command("Input.insertText", text=text)

    @property
    def focused(self) -> str:
        """The name of what has the focus."""
        found: str = self.evaluate(
            "((one) => one.labels?.[0]?.textContent || one.getAttribute('aria-label') || one.textContent)"
            "(document.activeElement)"
        )
        return found.strip()

    def tab_to(self, name: str) -> None:
        """Press Tab until something of this name has the focus."""
        passed = []
        while self.focused != name:
            passed.append(self.focused)
            assert len(passed) < _MOST_TABS, f"no {name!r} among {passed}"
            self.press("Tab")

    # ------------------------------------------------------------------ looks

    def picture(self, file: Path) -> None:
        """A screenshot of the whole page."""
        found = self._command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def look(self, width: int, dark: bool = False) -> None:
        """A screen of this width, light or dark."""
        self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=860, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._command("Emulation.setEmulatedMedia", features=scheme)
        self._command("Emulation.setScrollbarsHidden", hidden=True)
        self.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(null))))")
