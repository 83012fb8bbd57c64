"""The end of a worker: devices are let go one after another, so that they do not all reconnect at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

from farm.worker.links import Links
from farm.worker.sockets import Sockets
from router.common import logs

_STEP_S: Final = 0.05


async def drain(sockets: Sockets, links: Links, over: Callable[[], float], close_timeout: float) -> None:
    """Close every device, and have the routers confirm what they were sent.

    over: seconds over which that is spread evenly; it is asked at every step, as the supervisor, which knows what the
    other workers hold, may say so a moment later. close_timeout: how long devices may then take to answer the close, in
    seconds.
    """
    sockets.drain()
    waiting = sockets.open_connections()
    total, closed, began = len(waiting), 0, time.monotonic()
    logs.event("worker.draining", connections=total)
    while closed < total:
        seconds = over()
        share = (time.monotonic() - began) / seconds if seconds > 0 else 1.0
        upto = min(total, int(total * share) + 1)
        sockets.begin_turn(time.monotonic())
        for connection in waiting[closed:upto]:
            sockets.let_go(connection)
        closed = max(closed, upto)
        links.pump()
        if closed < total:
            await trio.sleep(_STEP_S)
    with trio.move_on_after(close_timeout):
        while len(sockets) or sockets.relaying:
            for connection in sockets.open_connections():
                sockets.let_go(connection)
            links.pump()
            await trio.sleep(_STEP_S)
    with trio.move_on_after(1.0):
        while links.unconfirmed and links.joined:
            await trio.sleep(_STEP_S)
    links.leave()
    logs.event("worker.drained", closed=total)
