"""Drives a stock Firefox, headless, over WebDriver BiDi."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from support.browser import Browser, BrowserError, Scripts, as_json
from support.installed import find_program

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


def find_firefox() -> str:
    """The program: $FIREFOX, firefox-esr or firefox."""
    return find_program(os.environ.get("FIREFOX", ""), "firefox-esr", "firefox")


class Firefox(Browser, Scripts):
    """One Firefox with one tab."""

    name: ClassVar = "Firefox"
    address: ClassVar = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
    path: ClassVar = "/session"
    close: ClassVar = "browser.close"

    def __init__(self, program: str, folder: Path, prefs: Mapping[str, Pref]) -> None:
        super().__init__(program, folder)
        self._context = ""
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in (_QUIET | prefs).items()]
        (self.profile / "user.js").write_text("".join(lines))

    def command_line(self) -> list[str]:
        command = [self.program, "--headless", "--new-instance", "--no-remote", "--profile", str(self.profile)]
        return [*command, "--remote-debugging-port", "0", "about:blank"]

    def environ(self) -> dict[str, str]:
        # Firefox does not start as root in another user's home.
        return super().environ() | {"MOZ_HEADLESS": "1", "MOZ_CRASHREPORTER_DISABLE": "1"}

    def opened(self) -> None:
        self.command("session.new", capabilities={})
        self._context = self.command("browsingContext.getTree")["contexts"][0]["context"]

    def command(self, method: str, **params: Any) -> Any:
        answer = self.exchange({"method": method, "params": params})
        if answer["type"] != "success":
            raise BrowserError(f"{method}: {answer['error']}: {answer['message']}")
        return answer["result"]

    def open(self, url: str) -> None:
        """Go to a page, in the one tab; returns when it has loaded."""
        self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        result = self.command(
            "script.evaluate",
            expression=as_json(expression),
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] != "success":
            raise BrowserError(f"{expression}: {result['exceptionDetails']['text']}")
        value = result["result"].get("value")
        return None if value is None else json.loads(value)
