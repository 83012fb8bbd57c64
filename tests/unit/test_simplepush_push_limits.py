"""What may be pushed to one endpoint of SimplePush: beyond, the dialect refuses in its own words."""

from __future__ import annotations

import json

from support import simplepush_app
from support.common import Rig, in_rig

ENDPOINT = {"pushes_per_endpoint": 0.5, "burst_seconds": 4}
"""Two at once, and one more every two seconds."""
WAIT = ("Retry-After", "2")


@in_rig(limits=ENDPOINT)
async def test_simplepush_an_endpoint(rig: Rig) -> None:
    app = simplepush_app.App(rig)
    statuses = [await app.settled(app.put(b"version=%d" % number)) for number in range(1, 4)]
    assert statuses == [(202, {}), (202, {}), (429, "Too many updates for this endpoint")]
    (answer,) = app.put()
    assert WAIT in answer.headers
    other = "99999999-2222-3333-4444-555555555555"
    assert (await app.settled(app.ask("/update/" + app.token(other))))[0] == 202
    lines = json.dumps({"token": app.token(), "version": 7}).encode() + b"\n"
    answers = app.ask("/v1/push", lines * 2, b"POST")
    app.turns.run()
    await rig.settle()
    assert [json.loads(line)["status"] for line in answers[0].body.splitlines()] == [429, 429]
    rig.clock.pass_by(2)
    assert (await app.settled(app.put()))[0] == 202
    assert rig.hub.counters.limited_pushes_per_endpoint == 4
