"""What may be pushed to one endpoint of WebPush, and by whom: beyond, the dialect refuses in its own words."""

from __future__ import annotations

from support import webpush_app
from support.common import Rig, in_rig
from support.webpush_vapid import Sender

ENDPOINT = {"pushes_per_endpoint": 0.5, "burst_seconds": 4}
"""Two at once, and one more every two seconds."""
WAIT = ("Retry-After", "2")


@in_rig(limits=ENDPOINT)
async def test_webpush_an_endpoint(rig: Rig) -> None:
    app = webpush_app.App(rig)
    await rig.settle()
    assert [await app.outcome(app.post()) for _ in range(3)] == [(201, None), (201, None), (429, 201)]
    assert WAIT in (await app.settled(app.post())).headers
    rig.clock.pass_by(2)
    assert await app.outcome(app.post()) == (201, None)


@in_rig(limits={"pushes_per_application": 1, "burst_seconds": 2})
async def test_webpush_a_vapid_key(rig: Rig) -> None:
    app = webpush_app.App(rig)
    await rig.settle()
    other = Sender()
    assert [await app.outcome(app.post(authorization=app.vapid())) for _ in range(3)] == [
        (201, None),
        (201, None),
        (429, 201),
    ]
    assert ("Retry-After", "1") in (await app.settled(app.post(authorization=app.vapid()))).headers
    assert await app.outcome(app.post(authorization=app.vapid(other))) == (201, None)
    assert [await app.outcome(app.post()) for _ in range(5)] == [(201, None)] * 5  # it has not signed
    assert rig.hub.counters.limited_pushes_per_application == 2
    assert rig.hub.counters.pushes_invalid == rig.hub.counters.pushes_rejected == 0
