"""Operations of dialects at the owner of a key: those of app servers, and those of devices (INVOKE)."""

from collections.abc import Callable
from typing import Any

import pytest
from support.common import Rig, in_rig

from router.common import messages as m
from router.common.operation import Operation, encoded, invoke
from router.common.partitions import fixed_owners
from router.core.operations import EVERYWHERE, Done, Operations

CHANNEL = m.channel_key("talk", "", "lobby")
DEVICE = bytes(range(16))


class Add(Operation, tag=1):
    REPLY = int

    number: int


class Forget(Operation, tag=2):
    names: list[str]


class Talk:
    """Keeps what it is asked, and answers when told to."""

    def __init__(self, operations: Operations) -> None:
        self.asked: list[tuple[bytes, Operation]] = []
        self.open: list[Done] = []
        operations.register("talk", {Add: self.add, Forget: self.forget})

    def add(self, key: bytes, asked: Add, done: Done) -> None:
        if asked.number < 0:
            raise m.MessageError("none of ours")
        self.asked.append((key, asked))
        self.open.append(done)

    def forget(self, key: bytes, asked: Forget, done: Done) -> None:
        self.asked.append((key, asked))
        done(m.OK if asked.names else m.FULL)


def answers() -> tuple[list[tuple[Any, ...]], Callable[..., None]]:
    found: list[tuple[Any, ...]] = []
    return found, lambda *answer: found.append(answer)


# ---------------------------------------------------------------------- at the owner


def test_the_owner_of_all_keys_performs_everything_itself() -> None:
    operations = Operations()
    talk = Talk(operations)
    found, done = answers()
    operations.at(CHANNEL, Add(3), done)
    operations.at(DEVICE, Forget(["a"]), done)
    assert talk.asked == [(CHANNEL, Add(3)), (DEVICE, Forget(["a"]))]
    assert found == [(m.OK,)]
    talk.open[0](m.OK, 7)
    assert found == [(m.OK,), (m.OK, 7)]
    assert operations.owns(CHANNEL)
    assert operations.owner(DEVICE) == 0


def test_several_answers_come_together_in_the_order_asked() -> None:
    operations = Operations()
    talk = Talk(operations)
    found, done = answers()
    operations.at_each([(CHANNEL, Add(1)), (DEVICE, Forget([])), (DEVICE, Add(2))], done)
    talk.open[1](m.OK, 12)
    assert found == []
    talk.open[0](m.FAILED)
    assert found == [([(m.FAILED, None), (m.FULL, None), (m.OK, 12)],)]
    operations.at_each([], done)
    assert found[1:] == [([],)]


def test_what_every_router_does_is_done_here_too() -> None:
    operations = Operations()
    talk = Talk(operations)
    found, done = answers()
    operations.at_all(Add(1), done)
    assert talk.asked == [(EVERYWHERE, Add(1))]
    talk.open[0](m.OK, 4)
    operations.at_all(Forget([]), done)
    assert found == [(m.OK, [4]), (m.FULL, [])]


def test_keys_by_their_owner() -> None:
    operations = Operations(fixed_owners(3), 1)
    key_of = {str(number): m.channel_key("talk", "", str(number)) for number in range(100)}
    shares = operations.by_owner(key_of, key_of.__getitem__)
    found = {operations.owner(key): names for key, names in shares}
    assert len(shares) == 3 and sorted(found) == [0, 1, 2]
    assert all(key == key_of[names[0]] for key, names in shares)
    for owner, names in found.items():
        assert names == [name for name, key in key_of.items() if operations.owner(key) == owner]
    assert [name for name, key in key_of.items() if operations.owns(key)] == found[1]


# ---------------------------------------------------------------------- from another process


def test_what_comes_encoded_is_performed_and_its_reply_encoded() -> None:
    operations = Operations()
    talk = Talk(operations)
    found, reply = answers()
    operations.perform("talk", CHANNEL, encoded(Add(3)), reply)
    assert talk.asked == [(CHANNEL, Add(3))]
    talk.open[0](m.OK, 300)
    operations.perform("talk", CHANNEL, encoded(Forget(["a"])), reply)
    operations.perform("talk", CHANNEL, encoded(Forget([])), reply)
    operations.perform("other", CHANNEL, encoded(Add(3)), reply)
    assert found == [(m.OK, encoded(300)), (m.OK, b""), (m.FULL, None), (m.OK, None)]


@pytest.mark.parametrize("data", [b"", b"\x92\x01", b"\x92\x01\xa1a", b"\x93\x01\x05\x05", b"\x92\x03\x05", b"\xc1"])
def test_what_is_no_operation_is_refused(data: bytes) -> None:
    operations = Operations()
    talk = Talk(operations)
    with pytest.raises(m.MessageError):
        operations.perform("talk", CHANNEL, data, lambda status, reply: None)
    assert talk.asked == []


def test_what_belongs_to_another_router_is_not_performed_here() -> None:
    here, there = Operations(fixed_owners(2), 0), Operations(fixed_owners(2), 1)
    talks = Talk(here), Talk(there)
    refused = 0
    for key in (m.channel_key("talk", "", str(number)) for number in range(20)):
        for operations in (here, there):
            try:
                operations.perform("talk", key, encoded(Add(1)), lambda status, reply: None)
            except m.MessageError:
                refused += 1
                assert not operations.owns(key)
    assert refused == 20
    assert len(talks[0].asked) + len(talks[1].asked) == 20


# ---------------------------------------------------------------------- at other routers


class Others:
    """Routers that perform with the operations of their own, and answer when told to."""

    def __init__(self, routers: int) -> None:
        owners = fixed_owners(routers)
        self.asked: list[tuple[int, bytes]] = []
        self.answered: list[Callable[[], None]] = []
        self.operations = [Operations(owners, number, self.ask) for number in range(routers)]
        self.talks = [Talk(operations) for operations in self.operations]

    def ask(self, owner: int, dialect: str, key: bytes, data: bytes, answered: Callable[[int, bytes], None]) -> None:
        self.asked.append((owner, key))

        def answer(status: int, reply: bytes | None) -> None:
            self.answered.append(lambda: answered(status, reply or b""))

        self.operations[owner].perform(dialect, key, data, answer)


def owned_by(operations: Operations, owner: int) -> bytes:
    keys = (m.channel_key("talk", "", str(number)) for number in range(100))
    return next(key for key in keys if operations.owner(key) == owner)


def test_the_owner_is_asked_for_what_is_not_here() -> None:
    others = Others(2)
    here = others.operations[0]
    key = owned_by(here, 1)
    found, done = answers()
    here.at(owned_by(here, 0), Forget(["a"]), done)
    assert others.asked == []
    here.at(key, Add(4), done)
    here.at(key, Forget([]), done)
    assert others.asked == [(1, key), (1, key)]
    assert others.talks[1].asked == [(key, Add(4)), (key, Forget([]))]
    others.talks[1].open[0](m.OK, 8)
    for answer in others.answered:
        answer()
    assert found == [(m.OK,), (m.FULL,), (m.OK, 8)]


def test_what_every_router_does_needs_the_answers_of_all() -> None:
    others = Others(3)
    found, done = answers()
    others.operations[1].at_all(Add(1), done)
    assert [talk.asked for talk in others.talks] == [[(EVERYWHERE, Add(1))]] * 3
    for number, talk in enumerate(others.talks):
        assert found == []
        talk.open[0](m.OK, 10 + number)
        for answer in others.answered:
            answer()
        others.answered.clear()
    assert found == [(m.OK, [10, 11, 12])]
    others.operations[1].at_all(Add(2), done)
    for number, talk in enumerate(others.talks):
        talk.open[1](m.FAILED if number == 2 else m.OK, 5)
    for answer in others.answered:
        answer()
    assert found[1:] == [(m.FAILED, [])]


@pytest.mark.parametrize(("status", "reply", "becomes"), [(m.UNREACHED, b"", m.UNREACHED), (m.OK, b"\xa1a", m.FAILED)])
def test_an_owner_that_is_away_or_says_something_else_is_a_status(status: int, reply: bytes, becomes: int) -> None:
    operations = Operations(fixed_owners(2), 0, lambda owner, dialect, key, data, answered: answered(status, reply))
    Talk(operations)
    found, done = answers()
    operations.at(owned_by(operations, 1), Add(1), done)
    assert found == [(becomes,)]


# ---------------------------------------------------------------------- devices


@in_rig()
async def test_a_dialect_does_what_its_device_side_asks_for(rig: Rig) -> None:
    talk = Talk(rig.hub.core.operations)
    worker = rig.worker()
    worker.say(
        m.Call(1, invoke("talk", CHANNEL, Add(1))),
        m.Call(2, invoke("talk", CHANNEL, Add(-1))),
        m.Call(3, invoke("other", CHANNEL, Add(1))),
        m.Call(4, invoke("talk", DEVICE, Add(2))),
        m.Call(5, m.Invoke("talk", DEVICE, b"malformed")),
    )
    await rig.settle()
    assert worker.take() == [m.Reply(2, m.FAILED, None), m.Reply(3, m.OK, None), m.Reply(5, m.FAILED, None)]
    assert talk.asked == [(CHANNEL, Add(1)), (DEVICE, Add(2))]
    talk.open[1](m.FULL)
    await rig.settle()
    assert worker.session.confirmed == 0
    talk.open[0](m.OK, 5)
    await rig.settle()
    assert worker.take() == [m.Reply(4, m.FULL, None), m.Reply(1, m.OK, encoded(5))]
    assert worker.session.confirmed == 1
