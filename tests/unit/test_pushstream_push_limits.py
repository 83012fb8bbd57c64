"""What may be published to one channel of push stream, and from one address: the dialect refuses in its own words."""

from __future__ import annotations

from support import pushstream_app
from support.common import Rig, in_rig

ENDPOINT = {"pushes_per_endpoint": 0.5, "burst_seconds": 4}
"""Two at once, and one more every two seconds."""
WAIT = ("Retry-After", "2")


@in_rig(limits=ENDPOINT)
async def test_pushstream_a_channel(rig: Rig) -> None:
    app = pushstream_app.PushApp(rig)
    answers = [await app.call("POST", "/pub?id=a", "hello") for _ in range(3)]
    assert [one.status for one in answers] == [200, 200, 429]
    assert WAIT in answers[2].headers
    assert ("X-Nginx-PushStream-Explain", "Too many messages for this channel.") in answers[2].headers
    assert (await app.call("POST", "/pub?id=b", "hello")).status == 200
    assert rig.hub.counters.limited_pushes_per_endpoint == 1


@in_rig(limits={"pushes_per_address": 0.5, "burst_seconds": 4})
async def test_pushstream_an_address(rig: Rig) -> None:
    app = pushstream_app.PushApp(rig)
    answers = [await app.call("POST", f"/pub?id={number}", "hello") for number in range(3)]
    assert [one.status for one in answers] == [200, 200, 429]
    assert WAIT in answers[2].headers
    assert (await app.call("GET", "/pub?id=1")).status == 200
