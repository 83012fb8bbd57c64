"""Processes of a farm, killed while its clients are served."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from support.farm_fixture import SOON_S, Farm, until

Accepted = Callable[[], int]
"""How many messages the farm has accepted since it was started."""


def more(accepted: Accepted, number: int = 100) -> None:
    """Wait until so many messages more were accepted."""
    before = accepted()
    until(lambda: accepted() >= before + number, "messages are accepted", SOON_S)


def kill_each(farm: Farm, accepted: Accepted) -> None:
    """Kill one worker after the other, and then the router."""
    for shard in (0, 1):
        more(accepted)
        os.kill(farm.worker_pid(shard), signal.SIGKILL)
        more(accepted)
        farm.wait_healthy()
    router = farm.router_pid()
    os.kill(router, signal.SIGKILL)
    until(lambda: farm.router_pid() not in (None, router), "there is a new router")
    more(accepted)
    farm.wait_healthy()


def kill_all(farm: Farm, accepted: Accepted) -> None:
    """Kill the whole farm, and start it again."""
    more(accepted)
    farm.kill()
    farm.start()
    more(accepted)
