"""What a host tells the others, and what it tells its own routers and workers of them."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from router import dialects
from router.cluster.host import addresses, checks, directory, own_record
from router.cluster.membership import Check, Host, Member, Placement, Snapshot, State, disagreements, new_id
from router.common import curve
from router.common.cluster_settings import ClusterOptions
from router.common.directory import HostRow
from router.common.directory import Placement as Place
from router.common.options import Settings, defaults
from router.common.settings import SECTIONS, EndpointOptions, RouterOptions, TokenOptions
from router.common.token import new_key
from router.dialects import DialectSpec
from router.store.redis_keys import LAYOUT

OLD, NEW, OTHER = (curve.new_key() for _ in range(3))
ONE, TWO = new_key(), new_key()


def settings_of(key: str = OLD, tokens: str = ONE) -> Settings:
    found = defaults([*SECTIONS, dialects.switches(())]).replace(TokenOptions, keys=tokens)
    found = found.replace(ClusterOptions, bind="10.0.0.1:7400", key=key, name="a")
    return found.replace(EndpointOptions, url="https://push.example.org").replace(RouterOptions, routers=4)


def record(settings: Settings) -> Host:
    return own_record(settings, (), curve.load(settings), "a" * 16, 3)


def differ(one: Settings, two: Settings) -> list[str]:
    return disagreements(record(one), record(two))


def test_what_a_host_says_of_itself_shows_no_secret() -> None:
    settings = settings_of()
    text = msgspec.json.encode(record(settings)).decode()
    assert record(settings).address == "10.0.0.1:7400"
    assert (record(settings).name, record(settings).workers) == ("a", 3)
    for secret in (OLD, ONE):
        assert secret.rstrip("=") not in text
    assert msgspec.json.decode(text, type=Host) == record(settings)


def test_what_has_to_be_the_same_on_all_hosts() -> None:
    settings = settings_of()
    assert differ(settings, settings_of()) == []
    assert differ(settings, settings.replace(EndpointOptions, url="https://other.example.org")) == ["endpoint.url"]
    assert differ(settings, settings.replace(RouterOptions, routers=5)) == ["router.routers"]
    assert differ(settings, settings.replace(ClusterOptions, name="b", bind="10.0.0.2:1")) == []


def test_every_record_can_be_read_by_others() -> None:
    long = settings_of(tokens=",".join(new_key() for _ in range(100)))
    long = long.replace(EndpointOptions, url="https://push.example.org/" + 1000 * "x")
    assert msgspec.json.decode(msgspec.json.encode(record(long)), type=Host) == record(long)
    assert differ(long, long) == []
    assert differ(long, long.replace(EndpointOptions, url="https://push.example.org/" + 1001 * "x")) == ["endpoint.url"]


def test_hosts_have_the_same_layout_in_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """So none marks partitions in a way that shuts out those that run."""
    here = record(settings_of())
    monkeypatch.setattr("router.cluster.host.LAYOUT", LAYOUT + 1)
    assert disagreements(record(settings_of()), here) == ["layout of the keys in Redis"]


def test_keys_are_changed_host_by_host() -> None:
    # What one seals the other has to open.
    steps = (ONE, f"{ONE},{TWO}", f"{TWO},{ONE}", TWO)
    assert all(differ(settings_of(tokens=a), settings_of(tokens=b)) == [] for a, b in pairwise(steps))
    assert differ(settings_of(tokens=ONE), settings_of(tokens=TWO)) == ["token.keys"]
    assert differ(settings_of(tokens=ONE), settings_of(tokens=f"{TWO},{ONE}")) == ["token.keys"]
    keys = (OLD, f"{OLD},{NEW}", f"{NEW},{OLD}", NEW)
    assert all(differ(settings_of(a), settings_of(b)) == [] for a, b in pairwise(keys))
    assert "cluster.key" in differ(settings_of(OLD), settings_of(OTHER))


def test_each_dialect_that_is_on_names_its_own() -> None:
    def talk(**shared: str | bytes) -> DialectSpec:
        return DialectSpec(name="talk", shared=lambda settings: shared)

    def checked(*known: DialectSpec, key: str = OLD) -> dict[str, Check]:
        settings = defaults([*SECTIONS, dialects.switches(known)]).replace(ClusterOptions, key=key)
        return checks(settings, known, curve.load(settings))

    one = checked(talk(a="1", b=b"s3cret"))
    assert one["a"] == Check(("1",), ("1",))
    assert "s3cret" not in repr(one)
    assert one["b"].agrees(checked(talk(b=b"s3cret"), key=f"{NEW},{OLD}")["b"])
    assert not one["b"].agrees(checked(talk(b=b"another"))["b"])
    assert not one["b"].agrees(checked(talk(b=b"s3cret"), key=OTHER)["b"])  # nobody can try what it is
    assert not one["dialects"].agrees(checked()["dialects"])


def test_where_routers_are_is_said_of_those_that_are_somewhere() -> None:
    host = Host("a" * 16, "a", "[::1]:7400", "key", workers=2)
    assert addresses(host, 3) == ("[::1]:7406", "[::1]:7407")
    places = {
        0: Placement(0, 7, "a" * 16, State.READY),
        1: Placement(1, 8, "b" * 16, State.READY),
        2: Placement(2, 9, "", State.STARTING),
        3: Placement(3, 9, "a" * 16, State.GIVING, "b" * 16),
    }
    found = directory(Snapshot(0.0, 4, {host.id: Member(host, 0.0, 0, 0)}, places), "c")
    assert found.host == "c"
    assert found.hosts == [HostRow("a" * 16, "a", 2)]
    assert found.placements == [
        Place(0, 7, "a" * 16, "[::1]:7400", "[::1]:7401", "key"),
        Place(3, 9, "a" * 16, "[::1]:7406", "[::1]:7407", "key"),
    ]
    assert new_id() != new_id()
