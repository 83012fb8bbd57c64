"""What an operator sees and does of the channels of push stream."""

from __future__ import annotations

from support.common import Rig, in_rig
from support.operator import Operator
from support.pushstream_app import PushApp

from router.core.managing import BAD_REQUEST, NOT_FOUND, REFUSED
from router.dialects.pushstream import SPEC


@in_rig()
async def test_channels(rig: Rig) -> None:
    app = PushApp(rig)
    book = SPEC.book(app.context)
    assert book is not None
    op = Operator(rig, app.context, {"pushstream": book})
    listener = app.subscribe("a", "b")
    listener.count("b", 4)
    event = {"data": "hi", "event": "greeting"}
    assert await op.ask("channel.publish", dialect="pushstream", channel="a", event=event) == {"status": 200}
    ((heard, *_),) = (listener.hear(),)
    assert (heard.text, heard.event_type) == ("hi", "greeting")  # type: ignore[union-attr]
    await op.ask("channel.publish", dialect="pushstream", channel="c", event=event)
    page = await op.ask("channels", [listener.worker])
    rows = {row["channel"]: row["subscribers"] for row in page["channels"]}
    assert {"a": 1, "b": 4, "c": 0}.items() <= rows.items()
    found = await op.ask("channel", [listener.worker], dialect="pushstream", channel="a")
    assert (found["subscribers"], found["published"], found["stored"], found["position"]) == (1, 1, 1, 1)
    assert await op.code("channel", [listener.worker], dialect="pushstream", channel="d") == NOT_FOUND
    assert await op.code("channel", dialect="pushstream", channel="ALL") == BAD_REQUEST
    assert await op.code("channel.publish", dialect="pushstream", channel="a", event={"data": ""}) == REFUSED
