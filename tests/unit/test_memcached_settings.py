"""Which servers of memcached the settings may name, and by which prefix."""

from __future__ import annotations

import pytest

from farm.config import ConfigError, load
from farm.sections import all_sections
from router.common.memcached_settings import MemcachedOptions


def options(key: str, text: str) -> MemcachedOptions:
    tree = load(all_sections(), file=None, environ={}, assignments=[("--set", f"memcached.{key}", text)])
    return tree.get(MemcachedOptions)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("cache", "cache:11211"),
        ("cache.example.org:1", "cache.example.org:1"),
        ("10.0.0.1:11212", "10.0.0.1:11212"),
        ("[::1]", "[::1]:11211"),
        ("[fe80::1%eth0]:7", "[fe80::1%eth0]:7"),
        ("/run/memcached/socket", "/run/memcached/socket"),
    ],
)
def test_servers(given: str, used: str) -> None:
    assert options("servers", given).servers == (used,)
    assert options("servers", f"{given}, other:1").servers == (used, "other:1")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("servers", "cache:"),
        ("servers", "cache:0"),
        ("servers", "cache:65536"),
        ("servers", "::1"),
        ("servers", "[cache]:1"),
        ("servers", "a b:1"),
        ("servers", "http://cache:1"),
        ("servers", "/run/\x01"),
        ("prefix", "a b"),
        ("prefix", "é"),
        ("prefix", "x" * 101),
    ],
)
def test_what_cannot_be_a_server_or_a_prefix(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"memcached.{key}"):
        options(key, text)
