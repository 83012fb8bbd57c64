"""What may be pushed to one key of gopush2, and from one address: beyond, the dialect refuses in its own words."""

from __future__ import annotations

from support import gopush2_app
from support.common import Rig, in_rig

from router.http.message import Response

ENDPOINT = {"pushes_per_endpoint": 0.5, "burst_seconds": 4}
"""Two at once, and one more every two seconds."""
WAIT = ("Retry-After", "2")


@in_rig(limits=ENDPOINT)
async def test_gopush2_a_key(rig: Rig) -> None:
    app = gopush2_app.App(rig)
    await app.ch()

    async def push() -> Response:
        return await app.answer("POST", f"/pub?key={gopush2_app.KEY}", b"hello")

    assert [(await push()).status for _ in range(3)] == [200, 200, 429]
    assert WAIT in (await push()).headers
    assert (await app.stat("subscriber"))["failed_message"] == 0


@in_rig(limits={"pushes_per_address": 0.5, "burst_seconds": 4})
async def test_gopush2_an_address(rig: Rig) -> None:
    app = gopush2_app.App(rig, admin_key="secret")
    target = "/pub?key=nobody&admin_key=secret"

    async def push(address: str) -> Response:
        return await app.answer("POST", target, b"hello", address=address)

    answers = [await push("192.0.2.1") for _ in range(3)]
    assert [one.status for one in answers[:2]] == [200, 200]
    assert (answers[2].status, answers[2].body) == (429, b"Too many pushes from this address\n")
    assert WAIT in answers[2].headers
    assert (await push("192.0.2.2")).status == 200
