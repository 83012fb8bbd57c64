"""What an operator sees and does of the keys of gopush2."""

from __future__ import annotations

from typing import Any

import pytest
from support.common import Rig, in_rig
from support.gopush2_app import App
from support.operator import Operator

from router.common import messages as m
from router.core.managing import BAD_REQUEST, NOT_FOUND, REFUSED
from router.dialects.gopush2 import SPEC
from router.dialects.gopush2.protocol import channel_address, key_label, subscribers_address, subscribers_label


def operator(app: App) -> Operator:
    book = SPEC.book(app.context)
    assert book is not None
    return Operator(app.rig, app.context, {"gopush2": book})


@pytest.mark.parametrize(
    ("options", "listed", "subscribers"),
    [({}, False, None), ({"list_keys": True}, True, 2), ({"max_subscriber_per_key": 9}, True, 2)],
)
@in_rig()
async def test_keys(rig: Rig, options: dict[str, Any], listed: bool, subscribers: int | None) -> None:
    """Devices come as the device side has them come with these options."""
    app = App(rig, **options)
    op = operator(app)
    worker = rig.worker()
    if "max_subscriber_per_key" in options:
        key, label = subscribers_address("ann"), subscribers_label("ann")
        worker.say(m.Call(1, m.Subscribe(key, label)), m.Counted(key, 2))
    key, label = channel_address("ann"), key_label("ann") if "list_keys" in options else ""
    worker.say(m.Call(1, m.Subscribe(key, label)), *([m.Counted(key, 2)] if label else []))
    worker.take()
    page = await op.ask("channels", [worker])
    assert [(row["channel"], row["subscribers"]) for row in page["channels"]] == ([("ann", 2)] if listed else [])
    assert await op.code("channel", [worker], dialect="gopush2", channel="ann") == NOT_FOUND
    await app.ch(key="ann")
    assert await op.ask("channel.publish", dialect="gopush2", channel="ann", event={"data": "hi"}) == {"status": 200}
    found = await op.ask("channel", [worker], dialect="gopush2", channel="ann")
    assert (found["exists"], found["stored"], found["subscribers"]) == (True, 1, subscribers)
    assert 0 < found["expires_in"] <= 604_800
    assert [text for _, text in await app.stored("ann")] == ["hi"]


@in_rig()
async def test_what_an_app_server_would_be_refused(rig: Rig) -> None:
    op = operator(App(rig))
    answer = await op.ask("channel.publish", dialect="gopush2", channel="nobody", event={"data": "hi"})
    assert answer["error"] == {"code": REFUSED, "message": "404: can't get a subscriber (ret 3)"}
    assert await op.code("channel", dialect="gopush2", channel="k" * 513) == BAD_REQUEST
