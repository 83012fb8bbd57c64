"""What is done again and again goes on after it failed once."""

import pytest

from router.common.guard import guarded


def test_a_failure_is_a_line_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def do(number: int) -> None:
        done.append(number)
        raise ZeroDivisionError

    guarded("thing.failed", do, 1)
    guarded("thing.failed", do, 2)
    assert done == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["thing.failed"]


def test_an_end_is_an_end() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded("thing.failed", stop)
