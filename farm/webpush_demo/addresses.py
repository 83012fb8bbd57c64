"""Where a farm with these settings is reached from its own machine."""

from __future__ import annotations

from router.common.options import Settings
from router.common.settings import EndpointOptions, Listen


def default_router_url(settings: Settings) -> str:
    """The base of push endpoints, as `farm start` makes it.

    Raises: ValueError if the settings do not tell.
    """
    url = settings.get(EndpointOptions).url
    return url or f"http://{_here(settings, 'router_port', settings.get(Listen).router_port)}"


def default_device_url(settings: Settings) -> str:
    """The device port.

    Raises: ValueError if the settings do not tell.
    """
    return f"ws://{_here(settings, 'device_port', settings.get(Listen).device_port)}/"


def _here(settings: Settings, name: str, port: int) -> str:
    if port == 0:
        raise ValueError(f"is needed, since listen.{name} is 0 (a free port)")
    host = settings.get(Listen).host
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
