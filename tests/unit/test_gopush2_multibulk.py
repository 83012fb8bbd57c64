"""The command that a connection of gopush2's TCP protocol begins with, however its bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.dialects.gopush2.multibulk import FEWEST, MOST, MultibulkError, parse

MAX_BYTES = 200
WHOLE = b"*4\r\n$3\r\nsub\r\n$9\r\nTerry-Mao\r\n$1\r\n0\r\n$2\r\n30\r\n"


def command(*arguments: bytes) -> bytes:
    """As clients send it."""
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in arguments)


def test_the_command_of_its_readme() -> None:
    assert parse(WHOLE, MAX_BYTES) == ([b"sub", b"Terry-Mao", b"0", b"30"], len(WHOLE))


_argument = st.binary(max_size=20).filter(lambda argument: b"\n" not in argument)


@given(st.lists(_argument, min_size=FEWEST, max_size=MOST), st.binary(max_size=20))
def test_a_command_is_whole_at_its_last_byte_and_not_before(arguments: list[bytes], behind: bytes) -> None:
    data = command(*arguments)
    for cut in range(len(data)):
        assert parse(data[:cut], MAX_BYTES) is None
    assert parse(data + behind, MAX_BYTES) == (arguments, len(data))


@given(st.binary(max_size=60), st.sampled_from([b"", b"*3\r\n", b"*3\r\n$3\r\n", b"*3\r\n$3\r\nsub\r\n$"]))
def test_what_is_refused_stays_refused_whatever_follows(data: bytes, before: bytes) -> None:
    data = before + data
    refused = False
    for cut in range(len(data) + 1):
        try:
            found = parse(data[:cut], MAX_BYTES)
        except MultibulkError:
            refused = True
        else:
            assert not refused
            if found is not None:
                assert command(*found[0]) == data[: found[1]]
                return


@pytest.mark.parametrize(
    "data",
    [
        b"GET /sub HTTP/1.1\r\n",
        b"\r\n*3",
        b"*x",
        b"*\r\n",
        b"*+3",
        b"*-3",
        b"* 3",
        b"*03",
        b"*3\n",
        b"*3\rx",
        b"*2\r\n",
        b"*6\r\n",
        b"*0\r\n",
        b"*1000000",
        b"*3\r\n#",
        b"*3\r\n$x",
        b"*3\r\n$-1\r\n",
        b"*3\r\n$3\r\nsub\n",
        b"*3\r\n$3\r\nsubx",
        b"*3\r\n$3\r\nsub\r\r",
        b"*3\r\n$4\r\ns\nub",
        b"*3\r\n$3\r\nsub\r\n$201\r\n",
        b"*3\r\n$3\r\nsub\r\n$190\r\n",
        b"*3\r\n$9999999",
    ],
)
def test_what_can_become_no_command_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(MultibulkError):
        parse(data, MAX_BYTES)


def test_a_command_may_have_no_more_bytes_than_it_says() -> None:
    assert parse(WHOLE, len(WHOLE)) is not None
    with pytest.raises(MultibulkError, match=f"no more than {len(WHOLE) - 1} bytes"):
        parse(WHOLE, len(WHOLE) - 1)
