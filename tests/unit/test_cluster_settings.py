"""What the settings of a cluster may be, and what is refused at the start with a line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.config import ConfigError, load
from farm.sections import all_sections
from router.common import cluster_checks, curve
from router.common.cluster_settings import ClusterOptions, beat_interval
from router.common.options import Settings

KEY = curve.new_key()
WHOLE = {
    "cluster.enabled": "true",
    "cluster.bind": "10.0.0.2:7400",
    "cluster.key": KEY,
    "store.kind": "redis",
    "token.keys": curve.new_key(),
    "endpoint.url": "https://push.example.org",
    "router.routers": "4",
}


def settings(**changes: str) -> Settings:
    given = WHOLE | {name.replace("__", "."): value for name, value in changes.items()}
    return load(all_sections(), file=None, environ={}, assignments=[("--set", *item) for item in given.items()])


def test_none_of_it_is_needed_where_there_is_no_cluster() -> None:
    tree = load(all_sections(), file=None, environ={})
    assert cluster_checks.problems(tree) == cluster_checks.problems_alone(tree) == []


def test_a_whole_one() -> None:
    tree = settings()
    assert cluster_checks.problems(tree) == []
    options = tree.get(ClusterOptions)
    assert options.listens(0) == options.advertised(0) == ("10.0.0.2:7400", "10.0.0.2:7401")
    assert options.advertised(3) == ("10.0.0.2:7406", "10.0.0.2:7407")
    assert options.shown_name
    assert beat_interval(tree) == 0.75
    (problem,) = cluster_checks.problems_alone(tree)
    assert "farm start" in problem


@pytest.mark.parametrize(
    ("bind", "advertise", "listens", "advertised"),
    [
        ("0.0.0.0:7400", "a.example.org", "0.0.0.0:7400", "a.example.org:7400"),
        ("[::]:7400", "fd00::2", "[::]:7400", "[fd00::2]:7400"),
        ("[::]:7400", "[fd00::2]", "[::]:7400", "[fd00::2]:7400"),
        ("host-a:1", "", "host-a:1", "host-a:1"),
    ],
)
def test_addresses(bind: str, advertise: str, listens: str, advertised: str) -> None:
    tree = settings(cluster__bind=bind, cluster__advertise=advertise)
    assert cluster_checks.problems(tree) == []
    assert tree.get(ClusterOptions).listens(0)[0] == listens
    assert tree.get(ClusterOptions).advertised(0)[0] == advertised


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"store__kind": "sqlite"}, "store.kind"),
        ({"token__keys": ""}, "token.keys"),
        ({"endpoint__url": ""}, "endpoint.url"),
        ({"cluster__bind": ""}, "cluster.bind"),
        ({"cluster__bind": "10.0.0.2:65529"}, "ports 65529 to 65536"),
        ({"cluster__bind": "0.0.0.0:7400"}, "cluster.advertise"),
        ({"cluster__bind": "[::]:7400"}, "cluster.advertise"),
        ({"cluster__advertise": "::"}, "cluster.advertise"),
        ({"cluster__key": ""}, "cluster.key"),
        ({"cluster__key_file": "/dev/null"}, "cluster.key_file"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, str], named: str) -> None:
    (problem,) = cluster_checks.problems(settings(**changes))
    assert named in problem and "\n" not in problem
    assert KEY not in problem


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("bind", "10.0.0.2"),
        ("bind", "10.0.0.2:0"),
        ("bind", "10.0.0.2:65536"),
        ("bind", "::1:7400"),
        ("bind", "*:7400"),
        ("bind", "tcp://10.0.0.2:7400"),
        ("advertise", "a b"),
        ("advertise", "10.0.0.2:7400"),
        ("key", "short"),
        ("key", f"{KEY},{KEY},{KEY}"),
        ("name", "a b"),
    ],
)
def test_values_that_are_none(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(**{f"cluster__{key}": text})
    assert f"cluster.{key}" in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_file_holds_the_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n{curve.new_key()}\n")
    keys = curve.load(settings(cluster__key="", cluster__key_file=str(file)))
    assert len(keys) == 2
    assert keys[0].id == curve.parse(KEY)[0].id


@pytest.mark.parametrize("text", ["", "short", "\xff"])
def test_a_file_that_holds_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(curve.ClusterKeyError, match=r"cluster\.key_file: .*farm cluster-key"):
        curve.load(settings(cluster__key="", cluster__key_file=str(file)))
