"""The supervisor's side of the forker, with a real one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
import trio.testing
from support.common import settings_with

from farm.supervisor.children import Forker, ForkerClosed, ForkerFailed

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


def test_nothing_is_imported_from_the_folder_in_which_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("array", "farm", "msgspec", "router", "trio"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('what lies about is not ours')\n")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            forker = await Forker.start(settings_with(), nursery, PATIENCE_S, PATIENCE_S)
            await forker.check_alive()
            forker.close()

    trio.run(main)
