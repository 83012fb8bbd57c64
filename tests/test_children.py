"""The supervisor's side of the forker, with a real one."""

from __future__ import annotations

import signal

import pytest
import trio
import trio.testing
from support import settings_with

from farm.children import Forker, ForkerClosed, ForkerFailed

PATIENCE_S = 60.0


def test_a_forker_that_is_closed_while_it_is_asked_is_no_failure() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            forker = await Forker.start(settings_with(), nursery, PATIENCE_S, PATIENCE_S)
            await forker.check_alive()
            forker.process.signal(signal.SIGSTOP)

            async def close() -> None:
                await trio.testing.wait_all_tasks_blocked()
                forker.close()

            nursery.start_soon(close)
            with pytest.raises(ForkerClosed):
                await forker.check_alive()
            with pytest.raises(ForkerFailed, match="has gone"):
                await forker.check_alive()

    trio.run(main)
