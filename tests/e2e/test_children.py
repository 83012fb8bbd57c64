"""The supervisor's side of the fork server, with a real one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
import trio.testing
from support.common import settings_with

from farm.supervisor.children import ForkServer, ForkServerClosed, ForkServerFailed

PATIENCE_S = 60.0


def test_a_fork_server_that_is_closed_while_it_is_asked_is_no_failure() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            fork_server = await ForkServer.start(settings_with(), nursery, PATIENCE_S, PATIENCE_S)
            await fork_server.check_alive()
            fork_server.process.signal(signal.SIGSTOP)

            async def close() -> None:
                await trio.testing.wait_all_tasks_blocked()
                fork_server.close()

            nursery.start_soon(close)
            with pytest.raises(ForkServerClosed):
                await fork_server.check_alive()
            with pytest.raises(ForkServerFailed, match="has gone"):
                await fork_server.check_alive()

    trio.run(main)


def test_nothing_is_imported_from_the_folder_in_which_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("array", "farm", "msgspec", "router", "trio"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('what lies about is not ours')\n")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            fork_server = await ForkServer.start(settings_with(), nursery, PATIENCE_S, PATIENCE_S)
            await fork_server.check_alive()
            fork_server.close()

    trio.run(main)
