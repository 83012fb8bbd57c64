"""The settings tree: every source, every kind of value, and the message for each kind of mistake."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.config import MAX_FILE_BYTES, MAX_PROBLEMS, ConfigError, load, resolve
from farm.config_text import as_toml, render_default, toml_value
from farm.settings import OWN_SECTIONS
from farm.toml_lines import key_lines
from router.common.option_texts import base_url, base_url_or_none, host, origin
from router.common.options import Section, as_mapping, defaults, from_mapping, option
from router.common.settings import SECTIONS, Listen


@dataclass(frozen=True)
class Sample(Section):
    SECTION: ClassVar[str] = "sample"
    HELP: ClassVar[str] = "One option of every kind."

    count: int = option(5, "a number of things", unit="things", ge=1, le=10)
    ratio: float = option(0.5, "a share", ge=0)
    top: float = option(1.0, "bounded above only", le=2.5)
    free: int = option(0, "any number")
    shout: bool = option(False, "whether to shout")
    name: str = option('tea\x7f "quoted" \\', "any text")
    colour: str = option("red", "one of few", choices=("red", "green"))
    crew: str = option("auto", "how many", pattern="auto|[1-9][0-9]*", expects="auto or a whole number from 1")
    names: tuple[str, ...] = option(("a", "b"), "several texts")
    colours: tuple[str, ...] = option((), "several of few", choices=("red", "green"))
    place: str = option("", "where", expects="a base", check=base_url_or_none)
    key: str = option("", "not for everyone", pattern="|[a-f]+", expects="a key", secret=True)


@dataclass(frozen=True)
class Other(Section):
    SECTION: ClassVar[str] = "other_thing"

    count: int = option(1, "the same name elsewhere")
    depth: int = option(1, "only here")


TREE = (Sample, Other)
REAL = SECTIONS + OWN_SECTIONS


def problems(file: Path | None = None, environ: dict[str, str] | None = None, **flags: object) -> list[str]:
    """The problems of these sources; a flag `sample__count=3` stands for --set sample.count=3."""
    assignments = [("--set", key.replace("__", "."), value) for key, value in flags.items()]
    with pytest.raises(ConfigError) as caught:
        load(TREE, file=file, environ=environ or {}, assignments=assignments)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return list(caught.value.problems)


def from_environ(**environ: str) -> Sample:
    return load(TREE, file=None, environ={f"FARM_SAMPLE_{k}": v for k, v in environ.items()}).get(Sample)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "farm.toml"


def test_nothing_given_is_the_defaults() -> None:
    assert as_mapping(load(REAL, file=None, environ={})) == as_mapping(defaults(REAL))


def test_later_sources_win_and_are_named(toml: Path) -> None:
    toml.write_text("[sample]\ncount = 2\nratio = 2\nfree = 7\n")
    found = resolve(
        TREE,
        file=toml,
        environ={"FARM_SAMPLE_COUNT": "3", "FARM_SAMPLE_RATIO": "0.25", "PATH": "/bin"},
        assignments=[("--set", "sample.count", "4"), ("--count", "sample.count", 6)],
    )
    sample = found.settings.get(Sample)
    assert (sample.count, sample.ratio, sample.free) == (6, 0.25, 7)
    assert found.origins == {
        "sample.count": "--count",
        "sample.ratio": "FARM_SAMPLE_RATIO",
        "sample.free": f"{toml}, line 4",
    }


def test_every_kind_from_toml(toml: Path) -> None:
    toml.write_text(
        '[sample]\ncount = 10\nratio = 3\nshout = true\nname = "x"\ncolour = "green"\ncrew = 4\n'
        'names = ["p,q", "r"]\ncolours = ["red"]\nplace = "HTTPS://a.example/"\n'
    )
    sample = load(TREE, file=toml, environ={}).get(Sample)
    assert sample == Sample(10, 3.0, 1.0, 0, True, "x", "green", "4", ("p,q", "r"), ("red",), "https://a.example")
    assert type(sample.ratio) is float


@pytest.mark.parametrize("word", ["true", "1", "YES", "on", " True "])
def test_true_in_the_environment(word: str) -> None:
    assert from_environ(SHOUT=word).shout is True


@pytest.mark.parametrize("word", ["false", "0", "No", "off"])
def test_false_in_the_environment(word: str) -> None:
    assert from_environ(SHOUT=word).shout is False


def test_lists_in_the_environment_are_comma_separated() -> None:
    assert from_environ(NAMES=" p , q,,").names == ("p", "q")
    assert from_environ(NAMES=",").names == ()


@pytest.mark.parametrize("key", [field.name for field in fields(Sample)])
@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_variable_is_unset_whatever_the_kind(toml: Path, key: str, nothing: str) -> None:
    found = resolve(TREE, file=None, environ={f"FARM_SAMPLE_{key.upper()}": nothing})
    assert found.settings.get(Sample) == Sample()
    assert not found.origins


def test_an_empty_variable_does_not_hide_the_file(toml: Path) -> None:
    toml.write_text("[sample]\ncount = 2\n")
    assert load(TREE, file=toml, environ={"FARM_SAMPLE_COUNT": "", "FARM_SAMPLE_CUONT": ""}).get(Sample).count == 2


WRONG_VALUES = [
    ("count", "ten", "a whole number from 1 to 10 (unit: things)", "'ten'"),
    ("count", "11", "a whole number from 1 to 10 (unit: things)", "11"),
    ("count", "0", "a whole number from 1 to 10 (unit: things)", "0"),
    ("count", "2.5", "a whole number from 1 to 10 (unit: things)", "'2.5'"),
    ("count", "9" * 5000, "a whole number from 1 to 10 (unit: things)", "'" + "9" * 79 + "..."),
    ("ratio", "-0.1", "a number of at least 0", "-0.1"),
    ("ratio", "nan", "a number of at least 0", "nan"),
    ("ratio", "inf", "a number of at least 0", "inf"),
    ("top", "3", "a number of at most 2.5", "3.0"),
    ("count", "9" * 400, "a whole number from 1 to 10 (unit: things)", "a number of very many digits"),
    ("ratio", "1e400", "a number of at least 0", "inf"),
    ("ratio", "1e300", "a number of at least 0", "1e+300, which is beyond what can be used"),
    ("free", "x", "a whole number", "'x'"),
    ("free", "2147483648", "a whole number", "2147483648, which is beyond what can be used"),
    ("free", "-" + "9" * 400, "a whole number", "a number of very many digits, which is beyond what can be used"),
    ("name", "a\udcff", "text", "'a\\udcff'"),
    ("name", "a\0b", "text", "'a\\x00b'"),
    ("names", "a,b\udcff", "a list of texts", "['a', 'b\\udcff']"),
    ("place", "not a\tplace", "a base", "'not a\\tplace'"),
    ("shout", "maybe", "true or false", "'maybe'"),
    ("colour", "blue", "one of red, green", "'blue'"),
    ("crew", "0", "auto or a whole number from 1", "'0'"),
    ("colours", "red,blue", "a list of texts, each one of red, green", "['red', 'blue']"),
    ("key", "hush", "a key", "something else"),
]


@pytest.mark.parametrize(("key", "text", "wanted", "shown"), WRONG_VALUES)
def test_wrong_text(key: str, text: str, wanted: str, shown: str) -> None:
    variable = f"FARM_SAMPLE_{key.upper()}"
    flags: dict[str, Any] = {f"sample__{key}": text}
    said = problems(environ={variable: text}, **flags)
    told = f"sample.{key}: expected {wanted}, found {shown}"
    assert said == [f"{variable}: {told}", f"--set: {told}"]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("count", "true", "true"),
        ("count", '"5"', "'5'"),
        ("count", "5.0", "5.0"),
        ("ratio", "false", "false"),
        ("shout", "1", "1"),
        ("name", "3", "3"),
        ("crew", "true", "true"),
        ("names", '"a,b"', "'a,b'"),
        ("names", '["a", 1]', "['a', 1]"),
        ("count", f"0x{'f' * 5000}", "a number of very many digits"),
        ("names", f"[0x{'f' * 5000}]", "something that is too long to be shown"),
        ("ratio", "9" * 400, "a number of very many digits"),
        ("ratio", "1e400", "inf"),
        ("name", '"a\\u0000"', "'a\\x00'"),
    ],
)
def test_wrong_type_in_toml(toml: Path, key: str, value: str, shown: str) -> None:
    toml.write_text(f"# a farm\n\n[sample]\n{key} = {value}\n")
    (said,) = problems(toml)
    assert said.startswith(f"{toml}, line 4: sample.{key}: expected ")
    assert said.endswith(f", found {shown}")


def test_one_run_names_every_problem_of_every_source(toml: Path) -> None:
    toml.write_text("count = 3\nlost = 1\n[sampel]\na = 1\n[sample]\ncuont = 3\ndepth = 2\n[other_thing.deep]\na = 1\n")
    said = problems(toml, {"FARM_SAMPLE_COUNT": "x", "FARM_SAMPLE_COUNTS": "1"}, sample__clour="red", nowhere=None)
    assert said == [
        f"{toml}, line 1: count: stands outside of every section; it belongs under [sample] or [other_thing]",
        f"{toml}, line 2: lost: stands outside of every section; there are sample, other_thing",
        f"{toml}, line 3: [sampel]: no such section; did you mean [sample]?",
        f"{toml}, line 6: sample.cuont: no such option; did you mean sample.count?",
        f"{toml}, line 7: sample.depth: no such option; did you mean other_thing.depth?",
        f"{toml}, line 8: other_thing.deep: no such option; did you mean other_thing.depth?",
        "FARM_SAMPLE_COUNT: sample.count: expected a whole number from 1 to 10 (unit: things), found 'x'",
        "FARM_SAMPLE_COUNTS: no such option; did you mean FARM_SAMPLE_COUNT?",
        "--set: sample.clour: no such option; did you mean sample.colour?",
        "--set: expected section.key=value, found 'nowhere'",
    ]


def test_a_section_that_is_no_table(toml: Path) -> None:
    toml.write_text("sample = 3\n")
    assert problems(toml) == [f"{toml}, line 1: sample: expected a table [sample], found 3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[sample]\ncount = = 3\n", ", line 2: not valid TOML: Invalid value (column 9)"),
        (
            b"[sample]\ncount = 1\ncount = 2\n",
            ", line 3: not valid TOML: Cannot overwrite a value (column 10)",
        ),
        (b"[sample", ": not valid TOML: Expected ']' at the end of a table declaration (at end of document)"),
        (b"# \xff\n", ": is not UTF-8 text (byte 2)"),
        (b"a = " + b"[" * 100_000, ": not valid TOML: too many brackets in one another"),
        (b"a = " + b"9" * 5000, ": not valid TOML: a number has too many digits"),
        (b"#" * (MAX_FILE_BYTES + 1), f": is larger than {MAX_FILE_BYTES} bytes, so it is no settings file"),
    ],
)
def test_a_file_that_is_no_toml(toml: Path, content: bytes, said: str) -> None:
    toml.write_bytes(content)
    assert problems(toml) == [f"{toml}{said}"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert problems(missing) == [f"{missing}: cannot be read: No such file or directory"]
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("FARM_SAMPLE_COUNTER", "FARM_SAMPLE_COUNT"),
        ("FARM_SAMPEL_COUNT", "FARM_SAMPLE_COUNT"),
        ("FARM_OTHER_THNG_DEPTH", "FARM_OTHER_THING_DEPTH"),
        ("FARM_COUNT", "FARM_SAMPLE_COUNT or FARM_OTHER_THING_COUNT"),
    ],
)
def test_misspelt_variables(variable: str, meant: str) -> None:
    assert problems(environ={variable: "1"}) == [f"{variable}: no such option; did you mean {meant}?"]


def test_a_variable_of_a_section_is_never_ignored() -> None:
    assert problems(environ={"FARM_SAMPLE_ZZZ": "1"}) == ["FARM_SAMPLE_ZZZ: no such option"]


SERVICES = ["", "_DEVICE", "_ROUTER", "_ADMIN", "_WORKER", "_DATA", "_LISTEN", "_LISTEN_DEVICE", "_SAMPLE", "_XYZ"]


@pytest.mark.parametrize("service", SERVICES)
def test_variables_that_kubernetes_makes_of_a_service_are_passed_over(service: str) -> None:
    at = "tcp://10.0.0.1:8080"
    made = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8080",
        "SERVICE_PORT_HTTP_ALT": "8080",
        "PORT": at,
        "PORT_8080_TCP": at,
        "PORT_8080_TCP_PROTO": "tcp",
        "PORT_8080_TCP_PORT": "8080",
        "PORT_8080_TCP_ADDR": "10.0.0.1",
        "PORT_53_UDP": "udp://[fd00::1]:53",
        "PORT_53_UDP_PROTO": "udp",
    }
    found = resolve((*REAL, *TREE), file=None, environ={f"FARM{service}_{name}": value for name, value in made.items()})
    assert as_mapping(found.settings) == as_mapping(defaults((*REAL, *TREE)))
    assert not found.origins


def test_a_port_that_no_service_is_said_to_have_is_a_misspelt_option() -> None:
    with pytest.raises(ConfigError, match="did you mean FARM_LISTEN_DEVICE_PORT"):
        load(REAL, file=None, environ={"FARM_DEVICE_PORT": "9000"})


@pytest.mark.parametrize("variable", ["FARM_PORT", "FARM_", "FARMER_SAMPLE"])
def test_variables_of_others_are_left_alone(variable: str) -> None:
    assert as_mapping(load(REAL, file=None, environ={variable: "1"})) == as_mapping(defaults(REAL))


def test_only_the_first_problems_are_told(toml: Path) -> None:
    toml.write_text("[sample]\n" + "".join(f"k{number} = 1\n" for number in range(MAX_PROBLEMS + 7)))
    said = problems(toml)
    assert (len(said), said[-1]) == (MAX_PROBLEMS + 1, "and 7 more")


def test_a_negative_zero_is_zero() -> None:
    assert str(from_environ(RATIO="-0.0").ratio) == "0.0"


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("[a]\nx = 1\n[b]\nx = 2\n", ("b", "x"), 4),
        ("[a]\nx = [\n 1,\n 2,\n]\ny = 1", ("a", "x"), 2),
        ("[a]\nx = [\n 1,\n 2,\n]\ny = 1", ("a", "y"), 6),
        ('[a]\ns = """\ny = 1\n[b]\n"""\ny = 2\n', ("a", "y"), 6),
        ("a.x = 1\na.y = 2\n", ("a", "y"), 2),
        ('b = 1\na = {x = 1, "y" = 2}\n', ("a", "y"), 2),
        ("\r\n[a]\r\nx = 1\r\n", ("a",), 2),
        ("[a.b.c]\nx = 1\n[a]\ny = 1\n", ("a", "b"), 1),
        ("[a.b.c]\nx = 1\n[a]\ny = 1\n", ("a", "y"), 4),
        ("[[a]]\nx = 1\n[[a]]\nx = 2\n", ("a",), 1),
        ("# \u2028\na = '\u2028'\n[b]", ("b",), 3),
    ],
)
def test_key_lines(text: str, path: tuple[str, ...], line: int) -> None:
    assert key_lines(text)[path] == line


def test_the_lines_of_a_long_file_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0
    real = tomllib.loads

    def loads(text: str) -> dict[str, Any]:
        nonlocal parsed
        parsed += len(text)
        return real(text)

    monkeypatch.setattr(tomllib, "loads", loads)
    text = "[a]\n" + "".join(f"k{number} = 1\n" for number in range(5000)) + "x = [\n" + "1,\n" * 20_000 + "]\n"
    assert key_lines(text)["a", "x"] == 5002
    assert parsed < 20 * len(text)


# -- texts with a meaning


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("https://push.example.org", "https://push.example.org"),
        ("https://push.example.org/", "https://push.example.org"),
        ("HTTP://x:8081/a/b//", "http://x:8081/a/b"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://10.0.0.1", "http://10.0.0.1"),
        ("https://under_score.example./%7Ex", "https://under_score.example./%7Ex"),
    ],
)
def test_a_base_of_urls(text: str, used: str) -> None:
    assert base_url(text) == used


@pytest.mark.parametrize(
    "text",
    [
        *("", "push.example.org", "http://", "https:///x", "//x", "/push", "wss://x", "ftp://x", "https:x", "https//x"),
        *(
            "https://a b",
            "https://a\tb",
            "https://a\n",
            " https://a",
            "https://x/\x00",
            "https://x/\x7f",
            "https://\xe4.org",
        ),
        *("https://x?y=1", "https://x?", "https://x#f", "https://x/#", "https://u@x", "https://u:p@x", "https://x\\y"),
        *("https://x:", "https://x:0", "https://x:65536", "https://x:99999999", "https://x:http", "https://x:-1"),
        *(
            "https://x:\u0663",
            "https://[::1",
            "https://[::1]x",
            "https://[::g]",
            "https://[fe80::1%25eth0]",
            "https://::1",
        ),
        *("https://-x", "https://x-.org", "https://a..b", "https://.", "https://300.1.1.1", "https://1.2.3"),
        *("https://" + "a" * 64, "https://x/" + "a" * 600, "https://x/%zz", "https://x/a/../b", "https://x/<a>"),
    ],
)
def test_what_is_no_base_of_urls(text: str) -> None:
    with pytest.raises(ValueError):
        base_url(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "::1", "fe80::1%eth0", "localhost", "farm-1.example.org", "a_b"])
def test_a_host(text: str) -> None:
    assert host(text) == text


@pytest.mark.parametrize(
    "text", ["", " ", "[::1]", "a b", "a/b", "1.2.3.256", "a..b", "x" * 64, "\xe4", "h:80", "::1%a b"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError):
        host(text)


@pytest.mark.parametrize(
    "text", ["null", "https://a.example", "http://localhost:8080", "moz-extension://1-2", "https://[::1]"]
)
def test_an_origin(text: str) -> None:
    assert origin(text) == text


@pytest.mark.parametrize("text", ["*", "a.example", "https://a.example/", "https://a b", "https://", "https://\xe4"])
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError):
        origin(text)


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^#(?=[a-z])", "", text)


@pytest.mark.parametrize("tree", [TREE, REAL])
def test_the_default_file_changes_nothing(toml: Path, tree: tuple[type[Section], ...]) -> None:
    toml.write_text(render_default(tree))
    found = resolve(tree, file=toml, environ={})
    assert as_mapping(found.settings) == as_mapping(defaults(tree))
    assert not found.origins


@pytest.mark.parametrize("tree", [TREE, REAL])
def test_the_default_file_uncommented_gives_every_default(toml: Path, tree: tuple[type[Section], ...]) -> None:
    toml.write_text(uncommented(render_default(tree)))
    found = resolve(tree, file=toml, environ={})
    assert as_mapping(found.settings) == as_mapping(defaults(tree))
    assert set(found.origins) == {f"{s}.{k}" for s, keys in as_mapping(defaults(tree)).items() for k in keys}


def test_the_default_file_explains() -> None:
    text = render_default(TREE)
    assert "# a number of things\n# a whole number from 1 to 10 (unit: things); FARM_SAMPLE_COUNT\n#count = 5\n" in text
    assert "# One option of every kind.\n[sample]\n" in text


def test_the_effective_view_can_be_read_again(toml: Path) -> None:
    first = resolve(TREE, file=None, environ={"FARM_SAMPLE_NAMES": "x,y", "FARM_SAMPLE_FREE": "9"})
    toml.write_text(as_toml(first))
    assert as_mapping(load(TREE, file=toml, environ={})) == as_mapping(first.settings)
    assert 'names = ["x", "y"]  # FARM_SAMPLE_NAMES\n' in as_toml(first)
    assert 'colour = "red"\n' in as_toml(first)


def test_the_effective_view_keeps_secrets() -> None:
    text = as_toml(resolve(TREE, file=None, environ={"FARM_SAMPLE_KEY": "abcdef"}))
    assert "abcdef" not in text
    assert "#key = (hidden)  # FARM_SAMPLE_KEY\n" in text
    assert 'key = ""\n' in as_toml(resolve(TREE, file=None, environ={}))


@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False, allow_infinity=False)))
def test_values_survive_toml(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}\n") == {"x": value}


def test_the_real_tree_is_read_from_the_environment() -> None:
    settings = load(REAL, file=None, environ={"FARM_LISTEN_DEVICE_PORT": "9000"})
    assert settings.get(Listen).device_port == 9000


def test_two_options_with_one_variable_are_a_mistake_of_ours() -> None:
    @dataclass(frozen=True)
    class Clash(Section):
        SECTION: ClassVar[str] = "other"

        thing_depth: int = option(1, "FARM_OTHER_THING_DEPTH, as other_thing.depth is")

    with pytest.raises(AssertionError, match="same environment variable"):
        load((Other, Clash), file=None, environ={})


def test_settings_of_another_release_are_taken_as_far_as_both_know_them() -> None:
    before = load(TREE, file=None, environ={}, assignments=[("--set", "sample.count", "4")])
    tables = {name: dict(table) for name, table in as_mapping(before).items()}
    tables["sample"] |= {"gone": 7}
    tables["unheard_of"] = {"count": 1}
    del tables["sample"]["ratio"]
    found = from_mapping((*TREE, *REAL), tables)
    assert as_mapping(found) == as_mapping(before) | as_mapping(defaults(REAL))
