"""The end of a worker: devices are closed spread over `drain.seconds`, so that they do not all reconnect at once."""

from __future__ import annotations

import time
from typing import Final

import trio

from farm.worker.link import WorkerLink
from farm.worker.sockets import Sockets
from router.common import logs

_STEP_S: Final = 0.05


async def drain(sockets: Sockets, link: WorkerLink, seconds: float, close_timeout: float) -> None:
    """Close every device within so many seconds, and have the router confirm what it was sent.

    close_timeout: how long devices may then take to answer the close, in seconds.
    """
    sockets.drain()
    waiting = sockets.open_connections()
    logs.event("worker.draining", connections=len(waiting), seconds=seconds)
    total, closed, began = len(waiting), 0, time.monotonic()
    while closed < total:
        share = (time.monotonic() - began) / seconds if seconds > 0 else 1.0
        upto = min(total, int(total * share) + 1)
        sockets.begin_turn(time.monotonic())
        for connection in waiting[closed:upto]:
            sockets.let_go(connection)
        closed = upto
        link.pump()
        if closed < total:
            await trio.sleep(_STEP_S)
    with trio.move_on_after(close_timeout):
        while len(sockets):
            for connection in sockets.open_connections():
                sockets.let_go(connection)
            link.pump()
            await trio.sleep(_STEP_S)
    with trio.move_on_after(1.0):
        while link.unconfirmed and link.joined:
            await trio.sleep(_STEP_S)
    logs.event("worker.drained", closed=total)
