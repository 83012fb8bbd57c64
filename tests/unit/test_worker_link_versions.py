"""Workers and routers of neighbouring versions of the link."""

from pathlib import Path

import pytest
from support.common import Rig, in_rig
from support.link_ends import BEAT_S, DEVICE, Ends, linked

from router.common import messages as m
from router.common.wire import VERSIONS
from router.core.pushes import DELIVERED

BEFORE = range(m.PROTOCOL - 1, m.PROTOCOL)
"""What a process speaks that was installed one version ago."""


async def is_served(rig: Rig, ends: Ends, number: int) -> None:
    """A device attaches, is pushed to, and acknowledges."""
    ends.heard.clear()
    ends.say(m.Call(number, m.Attach(DEVICE, "", m.EVERYTHING, 0)))
    await ends.until(lambda: ends.heard)
    assert ends.heard[0].number == number
    outcome = rig.push(DEVICE, "a", number)
    await ends.until(lambda: len(ends.heard) == 2)
    ends.say(m.Result(ends.heard[1].number, m.WRITTEN), m.Ack(DEVICE, [("a", number)]))
    await ends.until(lambda: outcome and ends.worker.unconfirmed == 0)
    assert outcome == [DELIVERED]
    assert await rig.inbox(DEVICE) == []


@pytest.mark.parametrize("version", VERSIONS[:-1])
@in_rig()
async def test_a_worker_of_a_version_before_works_with_a_router_of_today(
    rig: Rig, tmp_path: Path, version: int
) -> None:
    async with linked(rig, tmp_path, versions=range(version, version + 1)) as ends:
        (session,) = rig.hub.sessions
        assert session.wire.version == version
        await is_served(rig, ends, 1)


@in_rig()
async def test_a_worker_goes_along_with_routers_of_both_versions_and_says_again_what_was_not_confirmed(
    rig: Rig, tmp_path: Path
) -> None:
    async with linked(rig, tmp_path) as ends:
        await is_served(rig, ends, 1)
        for number, versions in enumerate((BEFORE, VERSIONS), 2):
            ends.router_goes()
            rig.push(DEVICE, "kept", number, wait=False)
            await rig.settle()
            ends.say(m.Ack(DEVICE, [("kept", number)]), m.Call(10 * number, m.Fetch(DEVICE, 5)))
            assert ends.worker.unconfirmed == 1
            ends.heard.clear()
            ends.router_comes(versions)
            await ends.until(lambda: ends.heard and ends.worker.unconfirmed == 0)
            assert ends.heard == [m.Reply(10 * number, m.OK, [])]
            (session,) = rig.hub.sessions
            assert session.wire.version == versions[-1]
            await is_served(rig, ends, number)


@in_rig()
async def test_a_router_that_speaks_no_version_of_the_workers_is_asked_again(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("farm.worker.link._REFUSED_RETRY_S", 4 * BEAT_S)
    async with linked(rig, tmp_path) as ends:
        ends.router_goes()
        ends.router_comes(range(m.PROTOCOL + 1, m.PROTOCOL + 3))
        await ends.until(lambda: "link.versions_differ" in caplog.text)
        assert not ends.worker.joined
        ends.router_goes()
        ends.router_comes()
        await ends.until(lambda: ends.worker.joined)
        await is_served(rig, ends, 1)
