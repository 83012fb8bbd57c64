"""SimplePush's devices, for operators."""

import pytest
from support.common import Rig, in_rig
from support.simplepush_app import CHANNEL, DEVICE, App

from router.common import messages as m
from router.core.managing import Refusal
from router.dialects.device_book import TestPush
from router.dialects.simplepush.book import SimplePushDevices

HYPHENS = "0A1B2C3D-2222-3333-4444-555555555555"


def book(app: App) -> SimplePushDevices:
    return SimplePushDevices(app.context)


async def pushed(rig: Rig, devices: SimplePushDevices, channel: str = CHANNEL, data: str = "") -> list[int]:
    answers: list[int] = []
    devices.push(DEVICE, None, TestPush(channel, data), lambda status, text: answers.append(status))
    await rig.settle()
    return answers


@in_rig()
async def test_a_device_is_known_by_its_uaid_and_its_endpoints(rig: Rig) -> None:
    app = App(rig)
    devices = book(app)
    assert devices.address(DEVICE.hex()) == DEVICE and devices.uaid(DEVICE) == DEVICE.hex()
    hashed = devices.address(HYPHENS)
    assert hashed is not None and len(hashed) == 16
    assert devices.address("nonsense") is None
    for endpoint in (f"https://push.example.org/update/{app.token()}", app.token(), f"/update/{app.token()}?a=b"):
        assert devices.of_endpoint(endpoint) == (DEVICE, CHANNEL)
    assert devices.of_endpoint("https://push.example.org/update/nonsense") is None
    assert devices.of_endpoint("\udcff") is None
    assert devices.channels(b"record") is None and devices.channel(CHANNEL) == CHANNEL


@in_rig(store={"inbox_limit": 1})
async def test_a_push_goes_the_way_of_an_app_servers(rig: Rig) -> None:
    app = App(rig)
    devices = book(app)
    assert await pushed(rig, devices) == [202]
    assert await rig.inbox(DEVICE) == [(CHANNEL, int(rig.clock.unix()))]
    assert await pushed(rig, devices, "a" * 32) == [503], "there is room for one"
    listener = await app.live()
    answers: list[int] = []
    devices.push(DEVICE, None, TestPush(CHANNEL, "hello"), lambda status, text: answers.append(status))
    await rig.settle()
    assert listener.hear(m.WRITTEN)[2] == "hello"
    await rig.settle()
    assert answers == [200]
    rig.store.failing = True
    assert await pushed(rig, devices) == [503]


@pytest.mark.parametrize(("channel", "data"), [("", ""), ("no-uuid", ""), (CHANNEL, "x" * 11)])
@in_rig()
async def test_what_no_app_server_could_send_is_refused(rig: Rig, channel: str, data: str) -> None:
    with pytest.raises(Refusal):
        await pushed(rig, book(App(rig, max_data_bytes=10)), channel, data)
