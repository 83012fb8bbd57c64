"""Questions to the main server that come over the link: what is asked of it, and for whom."""

from support.common import Rig, in_rig, settings_with

from router.auth.questions import Questions
from router.common import messages as m
from router.common.auth_settings import AuthOptions

ASKED = m.Authorise("talk", m.CONNECT, "GET", "/a", [], "192.0.2.1", ["a"])
YES = m.Verdict(200, ["a"])
NUMBER = 7


def questions(rig: Rig) -> Questions:
    options = settings_with((AuthOptions, {})).get(AuthOptions)
    found = Questions(lambda dialect: "http://one", options, rig.hub.counters, rig.clock.monotonic, b"key")
    rig.hub.on_authorise(found)
    return found


@in_rig()
async def test_without_a_main_server_the_reply_is_failed(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(m.Call(NUMBER, ASKED), m.Withdraw(NUMBER))
    assert worker.take() == [m.Reply(NUMBER, m.FAILED, None)]


@in_rig()
async def test_a_question_that_is_withdrawn_is_not_put_and_has_no_reply(rig: Rig) -> None:
    asked = questions(rig)
    worker = rig.worker()
    other = rig.worker(1)
    for one in (worker, other):
        one.say(m.Call(NUMBER, ASKED))
    assert asked.waiting == 2
    worker.say(m.Withdraw(NUMBER))
    assert asked.waiting == 1
    worker.say(m.Withdraw(NUMBER))
    question = asked.take()
    assert question is not None
    asked.answered(question, YES)
    assert worker.take() == []
    assert [type(message) for message in other.take()] == [m.Reply]


@in_rig()
async def test_a_worker_that_joins_again_has_each_place_once(rig: Rig) -> None:
    asked = questions(rig)
    worker = rig.worker()
    worker.say(m.Call(NUMBER, ASKED))
    worker.join()
    assert asked.waiting == 0
    worker.say(m.Call(NUMBER, ASKED))  # its batch was not confirmed
    worker.say(m.Call(NUMBER, ASKED))  # and it asks anew what has no reply
    assert asked.waiting == 1
    question = asked.take()
    assert question is not None
    asked.answered(question, YES)
    assert [message.number for message in worker.take() if isinstance(message, m.Reply)] == [NUMBER]
