"""Several dialects on one path: the first message says which one a device speaks."""

import json

from support.common import settings_with

from farm.dialects import Become, Close, Context
from farm.dialects.echo import EchoDialect, EchoSession
from farm.dialects.simplepush import SimplePushDialect, Unidentified, dialect
from farm.worker.shared_path import SharedPath, Undecided, by_path
from farm.worker.upgrade import Request
from router.common.metrics import WorkerCounters
from router.common.token import Tokens

REQUEST = Request(b"GET", "/", "", {}, (1, 1))


class ShyEcho(EchoDialect):
    """An echo that only takes who asks for it, as WebPush will."""

    first_tick = 7.0

    def claims(self, first: bytes) -> bool:
        return first.startswith(b"echo")


def simplepush() -> SimplePushDialect:
    return dialect(Context(settings_with(), Tokens([b"k" * 32]), WorkerCounters(), lambda: 0.0))


def shared() -> SharedPath:
    found = by_path([(100, ("/",), simplepush()), (0, ("/", "/echo"), ShyEcho())])
    assert isinstance(found["/echo"], ShyEcho)
    path = found["/"]
    assert isinstance(path, SharedPath)
    return path


def test_the_more_particular_dialect_is_asked_first() -> None:
    session = shared().opened(REQUEST)
    assert isinstance(session, Undecided)
    (effect,) = session.received(b"echo this", False, 0.0)
    assert isinstance(effect, Become)
    assert isinstance(effect.session, EchoSession)
    assert (effect.message, effect.binary) == (b"echo this", False)


def test_the_rest_goes_to_the_one_that_takes_everything() -> None:
    message = json.dumps({"messageType": "hello", "uaid": "", "channelIDs": []}).encode()
    (effect,) = shared().opened(REQUEST).received(message, True, 0.0)
    assert isinstance(effect, Become)
    assert isinstance(effect.session, Unidentified)
    assert effect.message == message


def test_a_session_knows_the_request_but_for_its_headers() -> None:
    opened: list[Request] = []

    class Curious(EchoDialect):
        def opened(self, request: Request) -> EchoSession:
            opened.append(request)
            return super().opened(request)

    asked = Request(b"GET", "/", "a=1", {b"host": b"push"}, (1, 1), 0, "12.34")
    list(SharedPath([Curious(), ShyEcho()]).opened(asked).received(b"hi", False, 0.0))
    assert opened == [Request(b"GET", "/", "a=1", {}, (1, 1), 0, "12.34")]


def test_what_nobody_claims_is_closed() -> None:
    (effect,) = SharedPath([ShyEcho()]).opened(REQUEST).received(b"?", False, 0.0)
    assert isinstance(effect, Close)
    assert not SharedPath([ShyEcho()]).claims(b"?")
    assert SharedPath([ShyEcho()]).claims(b"echo")


def test_silence_is_closed_at_the_longest_deadline() -> None:
    path = shared()
    assert path.first_tick == 30.0
    effects, again = path.opened(REQUEST).tick(30.0)
    assert [type(effect) for effect in effects] == [Close]
    assert again == 0


def test_where_one_of_them_waits_for_ever_nobody_is_closed_for_silence() -> None:
    assert SharedPath([ShyEcho(), EchoDialect()]).first_tick == 0.0


def test_the_subprotocol_is_whosever_knows_it() -> None:
    assert shared().subprotocol(["push-notification"]) == "push-notification"
    assert shared().subprotocol(["other"]) is None
