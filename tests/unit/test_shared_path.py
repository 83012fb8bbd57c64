"""Several dialects on one path: the first message says which one a device speaks."""

from farm.dialects import Become, Close, DeviceSide, Dialect, Session
from farm.transports.request import Request
from farm.worker.shared_path import SharedPath, Undecided, by_path
from router.dialects import DialectSpec

REQUEST = Request(b"GET", "/", "", {}, (1, 1))


class Spoken(Session):
    """One that knows its dialect."""

    __slots__ = ("dialect",)

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect


class Open(Dialect):
    """Takes everything, and waits without end."""

    def opened(self, request: Request) -> Spoken:
        return Spoken(self)


class Patient(Open):
    """Takes everything, for which it waits longest."""

    first_tick = 30.0

    def subprotocol(self, offered: list[str]) -> str | None:
        return "patient" if "patient" in offered else None


class Shy(Open):
    """Takes what asks for it."""

    first_tick = 7.0

    def claims(self, first: bytes) -> bool:
        return first.startswith(b"shy")


SPEC = DialectSpec(name="any")
LAST = DeviceSide(spec=SPEC, make=lambda context: Patient(), paths=("/",), rank=100)
FIRST = DeviceSide(spec=SPEC, make=lambda context: Shy(), paths=("/", "/shy"), rank=0)


def shared() -> SharedPath:
    found = by_path([(LAST, Patient()), (FIRST, Shy())])
    assert isinstance(found["/shy"], Shy)
    path = found["/"]
    assert isinstance(path, SharedPath)
    return path


def test_the_more_particular_dialect_is_asked_first() -> None:
    session = shared().opened(REQUEST)
    assert isinstance(session, Undecided)
    (effect,) = session.received(b"shy thing", False, 0.0)
    assert isinstance(effect, Become)
    assert isinstance(effect.session, Spoken)
    assert isinstance(effect.session.dialect, Shy)
    assert (effect.message, effect.binary) == (b"shy thing", False)


def test_the_rest_goes_to_the_one_that_takes_everything() -> None:
    (effect,) = shared().opened(REQUEST).received(b"hello", True, 0.0)
    assert isinstance(effect, Become)
    assert isinstance(effect.session, Spoken)
    assert isinstance(effect.session.dialect, Patient)
    assert (effect.message, effect.binary) == (b"hello", True)


def test_a_session_knows_the_request_but_for_its_headers() -> None:
    opened: list[Request] = []

    class Curious(Open):
        def opened(self, request: Request) -> Spoken:
            opened.append(request)
            return super().opened(request)

    asked = Request(b"GET", "/", "a=1", {b"host": b"push"}, (1, 1), 0, "12.34")
    list(SharedPath([Curious(), Shy()]).opened(asked).received(b"hi", False, 0.0))
    assert opened == [Request(b"GET", "/", "a=1", {}, (1, 1), 0, "12.34")]


def test_what_nobody_claims_is_closed() -> None:
    (effect,) = SharedPath([Shy()]).opened(REQUEST).received(b"?", False, 0.0)
    assert isinstance(effect, Close)
    assert not SharedPath([Shy()]).claims(b"?")
    assert SharedPath([Shy()]).claims(b"shy")


def test_silence_is_closed_at_the_longest_deadline() -> None:
    path = shared()
    assert path.first_tick == 30.0
    effects, again = path.opened(REQUEST).tick(30.0)
    assert [type(effect) for effect in effects] == [Close]
    assert again == 0


def test_where_one_of_them_waits_for_ever_nobody_is_closed_for_silence() -> None:
    assert SharedPath([Shy(), Open()]).first_tick == 0.0


def test_the_subprotocol_is_whosever_knows_it() -> None:
    assert shared().subprotocol(["other", "patient"]) == "patient"
    assert shared().subprotocol(["other"]) is None
