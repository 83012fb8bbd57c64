"""Actions on devices: which device is meant, and what is answered, with books of two dialects."""

from typing import Any

import pytest
from support.common import Rig, in_rig
from support.hub_messages import DEVICE, OTHER, attach

from router.common import messages as m
from router.core.managing import CONFLICT, Actions, Refusal
from router.dialects.device_actions import DeviceActions
from router.dialects.device_book import DeviceBook, Done, TestPush

HASHED = b"h" * 16


class Plain(DeviceBook):
    """The uaid is the address, in digits."""

    space = "plain.device"

    def address(self, uaid: str) -> bytes | None:
        return bytes.fromhex(uaid) if len(uaid) == 32 else None

    def uaid(self, address: bytes) -> str | None:
        return address.hex()

    def of_endpoint(self, endpoint: str) -> tuple[bytes, str] | None:
        return (DEVICE, "room") if endpoint == "plain" else None

    def channel(self, slot: str) -> str:
        return slot.upper()

    def push(self, address: bytes, record: bytes | None, push: TestPush, done: Done) -> None:
        if push.channel == "no":
            raise Refusal(CONFLICT, "not there")
        done(200, f"{address.decode()} {push.channel} {push.data}")


class Hashing(Plain):
    """The address is made of the uaid, and does not give it back; the record has the channels."""

    space = "hashing.device"

    def address(self, uaid: str) -> bytes | None:
        return HASHED if uaid == DEVICE.hex() else None

    def uaid(self, address: bytes) -> str | None:
        return None

    def of_endpoint(self, endpoint: str) -> tuple[bytes, str] | None:
        return (HASHED, "room") if endpoint == "hashing" else None

    def channels(self, record: bytes | None) -> list[str] | None:
        return [] if record is None else record.decode().split()


class Operator:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._actions = Actions()
        DeviceActions({"plain": Plain(), "hashing": Hashing()}, rig.hub).register(self._actions)

    async def __call__(self, action: str, **arguments: Any) -> Any:
        answers: list[Any] = []
        self._actions.perform(action, arguments, answers.append)
        for _ in range(5):
            await self._rig.settle()
            for session in self._rig.hub.sessions:
                for message in [one for one in session.outbox if isinstance(one, m.Inspect)]:
                    session.outbox.remove(message)
                    found = [m.Inspection(message.device or DEVICE, "plain", "192.0.2.9", 0.0, 0)]
                    self._rig.hub.inspections.received(session, m.Inspected(message.number, found, False))
        (answer,) = answers
        return answer

    async def code(self, action: str, **arguments: Any) -> str:
        return str((await self(action, **arguments))["error"]["code"])


async def records(rig: Rig, space: str, key: bytes, value: bytes = b"one two") -> None:
    rig.hub.core.records.put(space, key, value, 0)
    await rig.settle()


@in_rig()
async def test_the_dialect_with_a_record_is_meant(rig: Rig) -> None:
    operator = Operator(rig)
    assert await operator.code("device", device=DEVICE.hex()) == "not_found"
    await records(rig, "hashing.device", HASHED)
    shown = await operator("device", device=DEVICE.hex())
    assert (shown["dialect"], shown["device"], shown["uaid"]) == ("hashing", HASHED.hex(), DEVICE.hex())
    assert (shown["registered"], shown["channels"], shown["connection"]) == (True, ["one", "two"], None)
    by_address = await operator("device", device=HASHED.hex())
    assert (by_address["dialect"], by_address["uaid"]) == ("hashing", None)
    assert await operator.code("device", device=DEVICE.hex(), dialect="plain") == "not_found"
    assert await operator.code("device", device=DEVICE.hex(), dialect="other") == "not_found"
    assert await operator.code("device", device="nonsense") == "not_found"


@in_rig()
async def test_a_device_is_of_the_dialect_that_its_worker_names(rig: Rig) -> None:
    """Both could have this address: only its worker knows which of them it speaks."""
    operator = Operator(rig)
    worker = rig.worker()
    worker.say(attach(HASHED))
    await rig.settle()
    worker.take()
    found = await operator("devices", uaid=HASHED.hex())
    assert [row["dialect"] for row in found["devices"]] == ["plain"]


@in_rig()
async def test_what_only_waits_is_found_too(rig: Rig) -> None:
    operator = Operator(rig)
    for number in range(3):
        rig.push(DEVICE, "abc"[number], number + 1, body="text")
    await rig.settle()
    shown = await operator("device", device=DEVICE.hex(), limit=2)
    inbox = shown["inbox"]
    assert (inbox["messages"], inbox["bytes"], inbox["next"]) == (3, 12, "b")
    shown_items = [(item["id"], item["channel"], item["content"]) for item in inbox["items"]]
    assert shown_items == [("a", "A", None), ("b", "B", None)]
    rest = await operator("device", device=DEVICE.hex(), limit=2, after="b", contents=True)
    assert [item["content"] for item in rest["inbox"]["items"]] == ["text"] and rest["inbox"]["next"] is None
    last = await operator("device", device=DEVICE.hex(), limit=1, after="b")
    assert [item["id"] for item in last["inbox"]["items"]] == ["c"] and last["inbox"]["next"] is None
    assert await operator("device.empty", device=DEVICE.hex()) == {"removed": 3}
    assert await operator.code("device.empty", device=DEVICE.hex()) == "not_found"


@in_rig()
async def test_an_endpoint_leads_to_its_device(rig: Rig) -> None:
    operator = Operator(rig)
    await records(rig, "plain.device", DEVICE)
    await records(rig, "hashing.device", HASHED)
    for endpoint, address in (("plain", DEVICE), ("hashing", HASHED)):
        (row,) = (await operator("devices", endpoint=endpoint))["devices"]
        assert (row["dialect"], row["device"], row["shard"]) == (endpoint, address.hex(), None)
    assert await operator.code("devices", endpoint="of another farm") == "not_found"


@in_rig()
async def test_an_address_leads_to_those_who_are_connected(rig: Rig) -> None:
    operator = Operator(rig)
    worker = rig.worker(2)
    worker.say(attach(since=int(rig.clock.monotonic() * 1000)))
    await rig.settle()
    worker.take()
    for address in ("192.0.2.9", "::ffff:192.0.2.9"):
        found = await operator("devices", address=address)
        (row,) = found["devices"]
        assert (row["device"], row["uaid"], row["shard"]) == (DEVICE.hex(), DEVICE.hex(), 2)
        assert (row["address"], row["since"], found["more"]) == ("192.0.2.9", 0.0, False)


@pytest.mark.parametrize(
    "arguments", [{}, {"uaid": "a", "endpoint": "b"}, {"address": "nowhere"}, {"uaid": "a", "limit": 0}]
)
@in_rig()
async def test_a_search_for_nothing_is_refused(rig: Rig, arguments: dict[str, Any]) -> None:
    assert await Operator(rig).code("devices", **arguments) == "bad_request"


@in_rig()
async def test_a_test_push_is_the_dialects(rig: Rig) -> None:
    operator = Operator(rig)
    await records(rig, "plain.device", OTHER)
    pushed = await operator("device.push", device=OTHER.hex(), push={"channel": "room", "data": "hello"})
    assert pushed == {"status": 200, "outcome": f"{OTHER.decode()} room hello"}
    assert await operator.code("device.push", device=OTHER.hex(), push={"channel": "no"}) == "conflict"
    assert await operator.code("device.push", device=OTHER.hex(), push={"ttl": -1}) == "bad_request"
    assert await operator.code("device.push", device=DEVICE.hex(), push={}) == "not_found"


@in_rig()
async def test_a_device_is_disconnected_and_forgotten(rig: Rig) -> None:
    operator = Operator(rig)
    worker = rig.worker()
    worker.say(attach())
    await records(rig, "plain.device", DEVICE)
    worker.take()
    assert await operator("device.disconnect", device=DEVICE.hex()) == {"disconnected": True}
    assert [type(one) for one in worker.take()] == [m.LetGo]
    worker.say(m.Detach(DEVICE))
    assert await operator("device.disconnect", device=DEVICE.hex()) == {"disconnected": False}
    assert await operator("device.forget", device=DEVICE.hex()) == {"forgotten": True}
    assert await operator.code("device.forget", device=DEVICE.hex()) == "not_found"


@in_rig()
async def test_a_store_that_does_not_answer_is_no_missing_device(rig: Rig) -> None:
    rig.store.failing = True
    operator = Operator(rig)
    for action in ("device", "device.forget"):
        assert await operator.code(action, device=DEVICE.hex()) == "unavailable"
    assert await operator.code("devices", uaid=DEVICE.hex()) == "unavailable"
