"""WebPush's devices, for operators."""

import pytest
from support.common import Rig, in_rig
from support.webpush_app import CHID, DEVICE, HEAD, MEMBER, OTHER_CHID, OTHER_MEMBER, SENDER, App

from router.core.managing import Refusal
from router.dialects.device_book import TestPush
from router.dialects.webpush.book import WebPushDevices
from router.dialects.webpush.protocol import device_address, plain_slot, topic_slot

RECORD = HEAD + MEMBER


def book(app: App) -> WebPushDevices:
    return WebPushDevices(app.context)


async def pushed(
    rig: Rig, devices: WebPushDevices, push: TestPush, record: bytes | None = RECORD, device: bytes = DEVICE
) -> int:
    answers: list[int] = []
    devices.push(device, record, push, lambda status, text: answers.append(status))
    await rig.settle()
    (answer,) = answers
    return answer


@in_rig()
async def test_a_device_is_known_by_its_uaid_and_its_endpoints(rig: Rig) -> None:
    app = App(rig)
    devices = book(app)
    uaid = "0123456789abcdef" * 2
    assert devices.address(uaid) == device_address(uaid) and devices.uaid(device_address(uaid)) is None
    assert devices.address(uaid.upper()) is None, "so no device of this dialect is called"
    for path in (app.path(), app.path(SENDER), app.path().replace("/v1", "")):
        for endpoint in (path, f"https://push.example.org/farm{path}"):
            assert devices.of_endpoint(endpoint) == (DEVICE, CHID)
    for nonsense in ("", "https://push.example.org/wpush/v1/nonsense", "https://push.example.org/update/abc"):
        assert devices.of_endpoint(nonsense) is None
    assert devices.channels(HEAD + MEMBER + OTHER_MEMBER) == [CHID, OTHER_CHID] and devices.channels(None) == []
    assert devices.channel(plain_slot(7, CHID)) == devices.channel(topic_slot(CHID, "t")) == CHID


@in_rig()
async def test_a_push_goes_the_way_of_an_app_servers(rig: Rig) -> None:
    devices = book(App(rig))
    assert await pushed(rig, devices, TestPush()) == 201
    assert await pushed(rig, devices, TestPush(CHID, "encrypted", 60)) == 201
    (first, _), (second, _) = await rig.inbox(DEVICE)
    assert devices.channel(first) == devices.channel(second) == CHID
    assert await pushed(rig, devices, TestPush(CHID, "", 0)) == 201
    assert len(await rig.inbox(DEVICE)) == 2, "a TTL of 0 waits for nobody"
    assert await pushed(rig, devices, TestPush(OTHER_CHID)) == 410
    assert await pushed(rig, devices, TestPush(), None) == 410, "it has no subscription"
    assert await pushed(rig, devices, TestPush(), RECORD, b"?" * 16) == 410, "it has gone meanwhile"
    rig.store.failing = True
    assert await pushed(rig, devices, TestPush()) == 503


@pytest.mark.parametrize("push", [TestPush("nonsense"), TestPush(CHID.replace("-", "")), TestPush(CHID, "x" * 11)])
@in_rig()
async def test_what_no_app_server_could_send_is_refused(rig: Rig, push: TestPush) -> None:
    with pytest.raises(Refusal):
        await pushed(rig, book(App(rig, max_body_bytes=10)), push)
