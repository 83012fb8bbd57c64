"""Which pattern a path of the device port belongs to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.worker.paths import Paths

PATHS = Paths(
    {
        each: each
        for each in ("/", "/sub", "/app/*", "/ws/**", "/ws/deep/**", "/ws/deep/exactly", "/ev/*", "/sub?channels")
    }
)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/", "/"),
        ("/sub", "/sub"),
        ("/sub/", None),
        ("/app", None),
        ("/app/", "/app/*"),
        ("/app/key", "/app/*"),
        ("/app/key/more", None),
        ("/ws", None),
        ("/ws/", "/ws/**"),
        ("/ws/a", "/ws/**"),
        ("/ws/a/b.b5/c", "/ws/**"),
        ("/ws/deep", "/ws/**"),
        ("/ws/deep/", "/ws/deep/**"),
        ("/ws/deep/er/still", "/ws/deep/**"),
        ("/ws/deep/exactly", "/ws/deep/exactly"),
        ("/wss/a", None),
        ("/ev/a", "/ev/*"),
        ("/ev/a/b", None),
        ("/*", None),
        ("", None),
    ],
)
def test_the_most_particular_pattern_counts(path: str, pattern: str | None) -> None:
    assert PATHS.find(path) == pattern


@pytest.mark.parametrize(
    ("path", "query", "pattern"),
    [
        ("/sub", "channels=a", "/sub?channels"),
        ("/sub", "_=1&channels=", "/sub?channels"),
        ("/sub", "key=a", "/sub"),
        ("/sub", "subchannels=a", "/sub"),
        ("/sub", "key=channels", "/sub"),
        ("/sub", "channels", "/sub"),
        ("/", "channels=a", "/"),
        ("/ws/a", "channels=a", "/ws/**"),
    ],
)
def test_an_argument_is_more_particular_than_the_path(path: str, query: str, pattern: str) -> None:
    assert PATHS.find(path, query) == pattern


def test_one_last_part_is_more_particular_than_all_that_follows() -> None:
    paths = Paths({"/a/**": "tree", "/a/*": "one"})
    assert [paths.find(path) for path in ("/a/x", "/a/x/y")] == ["one", "tree"]


@pytest.mark.parametrize(
    "pattern", ["", "sub", "/a*", "/a/*/b", "/a/***", "/*/a", "*", "/a?", "/a?b=1", "/a/*?b", "a?b"]
)
def test_what_is_no_pattern_is_said_at_start(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        Paths({pattern: 1})


_parts = st.lists(st.sampled_from(["a", "b", ""]), max_size=4).map(lambda parts: "/" + "/".join(parts))
_patterns = st.tuples(_parts, st.sampled_from(["", "*", "**"])).map(
    lambda drawn: drawn[0] if not drawn[1] else drawn[0].rstrip("/") + "/" + drawn[1]
)


@given(st.sets(_patterns, max_size=6), _parts)
def test_the_patterns_decide_as_a_walk_over_all_of_them_does(patterns: set[str], path: str) -> None:
    def rank(pattern: str) -> tuple[int, int] | None:
        if pattern.endswith("/**"):
            return (1, len(pattern)) if path.startswith(pattern[:-2]) else None
        if pattern.endswith("/*"):
            return (2, 0) if path.rpartition("/")[0] == pattern[:-2] else None
        return (3, 0) if path == pattern else None

    fitting = [(found, pattern) for pattern in patterns if (found := rank(pattern)) is not None]
    assert Paths({each: each for each in patterns}).find(path) == (max(fitting)[1] if fitting else None)
