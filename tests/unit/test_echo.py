"""The echo dialect: what a connection says comes back as it was."""

from farm.dialects import Binary, Context
from farm.dialects.echo import SIDE
from farm.transports.request import Request
from router.common.metrics import WorkerCounters
from router.common.options import Settings
from router.common.token import Tokens


def test_text_comes_back_as_text_and_binary_as_binary() -> None:
    dialect = SIDE.make(Context(Settings([]), Tokens([b"k" * 32]), WorkerCounters(), lambda: 0.0))
    one, other = (dialect.opened(Request(b"GET", "/echo", "", {}, (1, 1))) for _ in range(2))
    assert one is other  # it holds nothing
    assert list(one.received("ä".encode(), False, 0.0)) == ["ä".encode()]
    assert list(one.received(b"\xff", True, 0.0)) == [Binary(b"\xff")]


def test_it_is_off_by_default_and_has_a_path_of_its_own() -> None:
    assert not SIDE.spec.on
    assert SIDE.paths == ("/echo",)
