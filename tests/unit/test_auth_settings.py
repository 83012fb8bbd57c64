"""Which main server is asked for a dialect, and which settings of it cannot be."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from support.common import settings_with

from farm.config import ConfigError, load
from farm.dialects import DeviceSide, Dialect, sides, specs
from farm.sections import all_sections
from farm.worker.auth_dialects import asked_about, differing_urls
from farm.worker.shared_path import by_path
from router.auth.main_server import MainServer
from router.common.auth_settings import AuthOptions, auth_url
from router.common.metrics import RouterCounters
from router.common.options import Section, Settings
from router.dialects import DialectSpec

DIALECTS = [spec.name for spec in specs()]


def settings(url: str = "", **own: str) -> Settings:
    """With these URLs, of all and of single dialects."""
    sections = {section.SECTION: section for section in all_sections()}
    changes: list[tuple[type[Section], dict[str, Any]]] = [(AuthOptions, {"url": url})]
    return settings_with(*changes, *((sections[name], {"auth_url": text}) for name, text in own.items()))


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_may_have_a_main_server_of_its_own_or_none(name: str) -> None:
    assert auth_url(settings(), name) == ""
    assert auth_url(settings("http://all"), name) == "http://all"
    assert auth_url(settings("http://all", **{name: "http://own/x?y=1"}), name) == "http://own/x?y=1"
    assert auth_url(settings("", **{name: "http://own"}), name) == "http://own"
    assert auth_url(settings("http://all", **{name: "off"}), name) == ""
    assert auth_url(settings("http://all", **{name: "off"}), "another") == "http://all"
    assert auth_url(settings("http://all", **{name: "http://own"}), f"{name},another") == "http://own"


@pytest.mark.parametrize("text", ["", "http://main:8000/auth", "https://main/", "https://main/auth/?of=farm&x=%20"])
def test_what_can_be_asked(text: str) -> None:
    found = load(all_sections(), file=None, environ={}, assignments=[("--set", "auth.url", text)])
    assert found.get(AuthOptions).url == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("auth.url", "main:8000"),
        ("auth.url", "ftp://main"),
        ("auth.url", "http://user:secret@main"),
        ("auth.url", "http://main/#x"),
        ("auth.url", "http://main/?a b"),
        ("auth.url", "off"),
        ("auth.headers", "cookie,sec-websocket-key"),
        ("auth.headers", "Host"),
        ("auth.headers", "X-User"),
        ("auth.headers", "accept-encoding"),
        ("auth.headers", "a b"),
        ("auth.method", "put"),
        ("auth.timeout", "0"),
        *((f"{name}.auth_url", "of") for name in DIALECTS),
    ],
)
def test_what_cannot_be_set(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load(all_sections(), file=Path("/dev/null"), environ={}, assignments=[("--set", key, text)])


class Talk(Dialect):
    """One that is only named."""


def side(name: str, *paths: str, rank: int = 0) -> DeviceSide:
    return DeviceSide(spec=DialectSpec(name=name), make=lambda context: Talk(), paths=paths, rank=rank)


def test_dialects_that_share_a_path_are_asked_about_together() -> None:
    served = [(side("one", "/", "/one"), Talk()), (side("two", "/", rank=1), Talk()), (side("three", "/x"), Talk())]
    paths = by_path(served)
    names = asked_about(settings("http://all"), served, paths)
    assert [names[paths[path]] for path in ("/", "/one", "/x")] == ["one,two", "one", "three"]
    assert asked_about(settings(), served, paths) == {}
    assert differing_urls(settings("http://all"), [side for side, _ in served]) == []


SHARING = [
    (one.spec.name, other.spec.name)
    for one in sides()
    for other in sides()
    if one.spec.name != other.spec.name and {*one.paths} & {*other.paths}
]


@pytest.mark.parametrize(("one", "other"), SHARING)
def test_dialects_that_share_a_path_have_one_main_server(one: str, other: str) -> None:
    for found in (
        settings(**{one: "http://one/auth?key=secret"}),
        settings("http://all", **{one: "off"}),
        settings(**{one: "http://one", other: "http://other"}),
    ):
        (problem,) = differing_urls(found, sides())
        assert f"{one}.auth_url" in problem
        assert f"{other}.auth_url" in problem
        assert "set both alike" in problem
        assert "secret" not in problem
    assert differing_urls(settings(**{one: "http://same", other: "http://same"}), sides()) == []
    only = [side for side in sides() if side.spec.name != other]
    assert differing_urls(settings(**{one: "http://one"}), only) == []


def test_where_no_main_server_is_set_nothing_is_run_for_one() -> None:
    async def main(own: dict[str, str]) -> bool:
        with trio.move_on_after(10) as scope:
            await MainServer(settings(**own), RouterCounters()).run(lambda: None)
        return scope.cancelled_caught

    def runs(**own: str) -> bool:
        return trio.run(main, own, clock=trio.testing.MockClock(autojump_threshold=0))

    one, other = DIALECTS[:2]
    assert not runs()
    assert not runs(**{one: "off"})
    assert runs(**{one: "off", other: "http://own"})
