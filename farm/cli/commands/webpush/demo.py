"""`farm demo`: a page that tries WebPush with Firefox."""

from __future__ import annotations

import click

from farm.cli.extras import not_installed
from farm.cli.flag_types import whole
from farm.cli.flags import with_settings
from farm.cli.outcome import DONE, SURROUNDINGS, complain
from farm.config import Resolved


@click.command("demo", short_help="Serve a page that tries WebPush with Firefox.")
@click.option(
    "--port",
    type=whole(0, 65535),
    default=8083,
    metavar="PORT",
    help="Where the page is served, on loopback (0 to 65535; 0 takes a free port). Default: 8083.",
)
@click.option(
    "--router-url", metavar="URL", help="Public base of push endpoints. Default: endpoint.url, or the router port here."
)
@click.option("--device-url", metavar="URL", help="What Firefox connects to. Default: ws:// and the device port here.")
@with_settings("--host", "--device-port", "--router-port")
def command(port: int, router_url: str | None, device_url: str | None, resolved: Resolved) -> int:
    """Serve a page, on this machine only, that shows WebPush through a running farm in four steps.

    \b
      1. the preferences that point Firefox at the farm, to copy
      2. subscribe
      3. send yourself a push; the demo encrypts and signs it as an app server does
      4. see it arrive in the service worker, with the time it took

    \b
    Examples, with a farm from `farm start` running:
      farm demo
      farm demo --port 9000 --set listen.router_port=18081 --set listen.device_port=18080
      farm demo --router-url https://push.example.org --device-url wss://push.example.org/

    It posts to that farm's push endpoints and nowhere else. Its VAPID key lives as long as it runs:
    after a restart of the demo, subscribe again. Ctrl-C ends it.
    """
    if missing := not_installed("farm demo", "demo", "http_ece", "py_vapid", "trio_websocket"):
        return complain(missing)
    from farm.webpush_demo import server
    from farm.webpush_demo.addresses import default_device_url, default_router_url
    from farm.webpush_demo.sender import Base

    def ready(site: server.Site) -> None:
        click.echo(f"demo: open {site.url} in Firefox (devices {site.device_url}, endpoints {site.sender.base.url})")

    try:
        base = Base.parse(router_url or default_router_url(resolved.settings))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--router-url") from None
    try:
        devices = server.checked_device_url(device_url or default_device_url(resolved.settings))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--device-url") from None
    try:
        server.run(port, base, devices, ready)
    except OSError as exc:
        if exc.errno not in SURROUNDINGS:
            raise
        why = (exc.strerror or str(exc)).lower()
        return complain(f"farm demo: --port: cannot listen on port {port}: {why}; choose another, or 0 for a free one")
    return DONE
