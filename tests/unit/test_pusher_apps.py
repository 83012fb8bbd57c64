"""Applications of the Pusher dialect: the file they are read from, and the protocol's own vectors for signatures."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.certificates import write

from farm import cli
from router.common.options import Settings
from router.dialects.pusher import SPEC
from router.dialects.pusher.applications import WEBHOOK_EVENTS, App, Apps, AppsError, load, parse, read
from router.dialects.pusher.micronotifier import settings_of
from router.dialects.pusher.protocol import PusherOptions
from router.dialects.pusher.signatures import body_signature, request_signature, same, socket_signature, user_signature

KEY = "278d425bdf160c739803"
SECRET = "7ad3773142a6692b25b8"
PLAIN = {"name": "shop", "key": KEY, "secret": SECRET}


def parsed(tree: Any, unsigned: bool = False) -> list[App]:
    return list(parse(json.dumps(tree).encode(), "apps.json", unsigned).apps)


def problems(tree: Any) -> list[str]:
    data = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    with pytest.raises(AppsError) as caught:
        parse(data, "apps.json")
    assert all(problem.startswith("apps.json: ") for problem in caught.value.problems)
    return [problem.removeprefix("apps.json: ") for problem in caught.value.problems]


# ---------------------------------------------------------------------- signatures


def test_the_signature_of_a_private_channel() -> None:
    found = socket_signature(SECRET, "1234.1234", "private-foobar")
    assert found == "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"


def test_the_signature_of_a_presence_channel_covers_the_text_of_its_data() -> None:
    data = '{"user_id":10,"user_info":{"name":"Mr. Pusher"}}'
    found = socket_signature(SECRET, "1234.1234", "presence-foobar", data)
    assert found == "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"
    other = socket_signature(SECRET, "1234.1234", "presence-foobar", data.replace("Pusher", "Channels"))
    assert other == "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"


def test_the_signature_of_a_user() -> None:
    found = user_signature(SECRET, "1234.1234", '{"id":"12345"}')
    assert found == "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"


def test_the_signature_of_a_request() -> None:
    parameters = [
        ("auth_version", "1.0"),
        ("auth_key", KEY),
        ("body_md5", "ec365a775a4cd0599faeb73354201b6f"),
        ("auth_timestamp", "1353088179"),
    ]
    expected = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
    assert request_signature(SECRET, "POST", "/apps/3/events", parameters) == expected
    again = [(name.upper(), value) for name, value in parameters] + [("auth_signature", expected)]
    assert request_signature(SECRET, "POST", "/apps/3/events", again) == expected


def test_the_signature_of_a_webhook_is_that_of_its_bytes() -> None:
    assert body_signature("key", b"The quick brown fox jumps over the lazy dog") == (
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    )


def test_an_authorization_is_key_and_signature() -> None:
    app = App("1", "shop", KEY, SECRET)
    signature = socket_signature(SECRET, "1234.1234", "private-foobar")
    assert app.signed_by_us(f"{KEY}:{signature}", signature)
    for auth in ("", ":", KEY, signature, f"{KEY}:{signature[:-1]}", f"other:{signature}", f"{KEY}:{signature} ", "é"):
        assert not app.signed_by_us(auth, signature)


@pytest.mark.parametrize("given", ["", "é", "\ud800", "x" * 64])
def test_any_text_can_be_compared_and_signed(given: str) -> None:
    assert not same(given, "ab")
    assert same(given, given)
    assert len(socket_signature(SECRET, given, given, given)) == 64


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(App("1", "shop", KEY, SECRET))


# ---------------------------------------------------------------------- the file


def test_an_application_is_found_by_id_and_key() -> None:
    apps = Apps(parsed({"applications": [PLAIN, {"id": 7, "name": "b", "key": "k", "secret": "s"}]}))
    assert len(apps) == 2
    assert [app.id for app in apps] == ["shop", "7"]  # the name doubles as ID
    assert apps.by_id["7"] is apps.by_key["k"]
    assert apps.by_key[KEY] == App("shop", "shop", KEY, SECRET)


def test_everything_an_application_may_say() -> None:
    entry = PLAIN | {
        "id": "9",
        "enabled": False,
        "client_messages": True,
        "subscription_count": True,
        "authorized_connections": True,
        "watchlists": True,
        "unsigned": True,
        "connections_a_worker": 5,
        "webhooks": [
            {"url": "https://example.org/hook", "events": ["channel_occupied"]},
            {"url": "http://127.0.0.1:9000/"},
        ],
    }
    (app,) = parsed({"applications": [entry]})
    assert (app.id, app.enabled, app.client_events, app.subscription_count) == ("9", False, True, True)
    assert (app.authorized_connections, app.watchlists, app.unsigned) == (True, True, True)
    assert app.connections_a_worker == 5
    assert [hook.events for hook in app.webhooks] == [{"channel_occupied"}, frozenset(WEBHOOK_EVENTS)]


@pytest.mark.parametrize(("said", "default", "holds"), [(None, True, True), (False, True, False), (True, False, True)])
def test_an_application_may_differ_in_unsigned_from_the_others(said: bool | None, default: bool, holds: bool) -> None:
    (app,) = parsed({"applications": [PLAIN | {"unsigned": said}]}, default)
    assert app.unsigned is holds


def test_without_a_file_there_are_no_applications(tmp_path: Path) -> None:
    assert len(load("")) == 0
    (tmp_path / "empty.json").write_bytes(b"")
    assert len(load(str(tmp_path / "empty.json"))) == 0
    with pytest.raises(AppsError, match=r"none\.json: cannot be read: No such file"):
        load(str(tmp_path / "none.json"))


def test_a_file_of_micronotifier_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(
            {
                "Host": "localhost",
                "port": 8111,
                "certificate": "",
                "private-key": "",
                "Applications": [{"Name": "test", "KEY": "123", "secret": "456"}],
                "redis": {"address": "", "password": "", "database": 0, "sentinel": False},
            }
        )
    )
    found = read(file)
    assert (found.host, found.port) == ("localhost", 8111)
    assert list(found.apps) == [App("test", "test", "123", "456")]


def test_what_has_no_meaning_is_refused() -> None:
    assert problems({"certificate": "a.pem"}) == ["expected both a certificate and a private-key, or neither"]
    assert problems({"certificate": 1, "private-key": "a"}) == ["certificate and private-key: expected text"]
    assert problems({"redis": "localhost"})[0].startswith("redis: ")
    assert problems({"redis": {"database": -1}})[0].startswith("redis.database: ")
    assert problems({"redis": {"user": "u"}})[0].startswith("redis: ")


def test_every_problem_is_told_at_once() -> None:
    found = problems(
        {
            "aplications": [],
            "port": 70000,
            "host": 5,
            "applications": [
                "shop",
                {"name": "a", "key": "k"},
                PLAIN | {"client_mesages": True},
                PLAIN | {"key": 5},
                PLAIN | {"name": "a/b"},
                PLAIN | {"webhooks": [{"url": "ftp://example.org"}]},
                PLAIN | {"webhooks": [{"url": "http://example.org"}, {"url": "http://b", "events": ["occupied"]}]},
                PLAIN | {"webhooks": [{"url": "http://[::1"}]},
                PLAIN,
                PLAIN | {"id": "another"},
                PLAIN | {"key": "another"},
            ],
        }
    )
    assert found[0] == (
        "aplications: no such option; there are applications, host, port, certificate, private-key, redis"
    )
    assert found[1].startswith("applications[0]: Expected `object`")
    assert found[2] == "applications[1]: Object missing required field `secret`"
    assert found[3] == "applications[2]: Object contains unknown field `client_mesages`"
    assert found[4] == "applications[3].key: Expected `str`, got `int`"
    assert found[5].startswith("applications[4].name: ")
    assert found[6] == "applications[5].webhooks[0].url: expected a URL with http or https, without blanks"
    assert found[7].startswith("applications[6].webhooks[1].events: no such event 'occupied'")
    assert found[8].startswith("applications[7].webhooks[0].url: ")
    assert set(found[9:11]) == {"applications: two have the id 'shop'", f"applications: two have the key {KEY!r}"}
    assert found[11:] == ["host: expected text", "port: expected a whole number from 0 to 65535"]


@pytest.mark.parametrize(
    "end", ["a b", "a/b c", "a/\n", "a\t", "a..b", "-a", "a:0", "a:65536", "", "1.2.3.4.5", "a\x7f"]
)
def test_a_webhook_goes_to_a_url(end: str) -> None:
    (problem,) = problems({"applications": [PLAIN | {"webhooks": [{"url": f"https://{end}"}]}]})
    assert problem.startswith("applications[0].webhooks[0].url: ")


def test_a_webhook_may_have_a_user_a_query_and_letters_beyond_ascii() -> None:
    url = "https://u:p@m\u00fcnchen.example:8443/h\u00f6ren?key=a%20b"
    (app,) = parse(json.dumps({"applications": [PLAIN | {"webhooks": [{"url": url}]}]}).encode(), "apps.json").apps
    assert app.webhooks[0].url == url


@pytest.mark.parametrize("data", [b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"applications": {}}'])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    assert len(problems(data)) == 1


def test_a_problem_does_not_show_a_secret() -> None:
    assert "geheim" not in str(problems({"applications": [{"name": 5, "key": "k", "secret": "geheim"}]}))


# ---------------------------------------------------------------------- on the command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty; no settings in the environment."""
    for name in [name for name in os.environ if name.startswith("FARM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_force(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert cli.run(["check-config", *args]) == 0
    return tomllib.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    assert cli.run(list(args)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def written(folder: Path, tree: Any) -> str:
    (folder / "config.json").write_text(json.dumps(tree))
    return "config.json"


def test_micronotifier_says_who_and_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(folder, {"host": "127.0.0.1", "port": 9111, "applications": [PLAIN]})
    found = in_force(capsys, "--micronotifier-config", file)
    assert found["pusher"]["apps"] == file
    assert (found["listen"]["host"], found["listen"]["device_port"]) == ("127.0.0.1", 9111)
    assert found["listen"]["router_port"] == 8081
    assert found["pusher"]["one_port"] is True
    assert in_force(capsys, "--set", f"pusher.apps={file}")["pusher"]["one_port"] is False


@pytest.mark.parametrize("said", [{}, {"port": 0}])
def test_micronotifier_has_a_port_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str], said: Any) -> None:
    found = in_force(capsys, "--micronotifier-config", written(folder, said))
    assert (found["listen"]["host"], found["listen"]["device_port"]) == ("0.0.0.0", 8111)


def test_what_counts_more_than_micronotifier(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(folder, {"host": "127.0.0.1", "port": 9111})
    (folder / "farm.toml").write_text('[listen]\nhost = "127.0.0.2"\ndevice_port = 1\nrouter_port = 2\n')
    monkeypatch.setenv("FARM_LISTEN_HOST", "127.0.0.3")
    found = in_force(capsys, "--micronotifier-config", file, "--device-port", "9000")["listen"]
    assert (found["host"], found["device_port"], found["router_port"]) == ("127.0.0.3", 9000, 2)


@pytest.mark.parametrize("command", ["start", "check-config"])
def test_what_is_wrong_in_the_file_of_micronotifier_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = written(folder, {"certificate": "a.pem", "redis": {"address": 6379}})
    first, second = refused(capsys, command, "--micronotifier-config", file)
    assert first == f"--micronotifier-config: {file}: expected both a certificate and a private-key, or neither"
    assert second.startswith(f"--micronotifier-config: {file}: redis.address: ")


def test_the_certificate_of_micronotifier_is_the_devices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(folder, "localhost")
    tree = {"certificate": str(files.certificate), "private-key": str(files.key)}
    file = written(folder, tree)
    found = in_force(capsys, "--micronotifier-config", file)["tls"]
    assert (found["certificate"], found["key"]) == ([str(files.certificate)], [str(files.key)])
    (alone,) = refused(capsys, "check-config", "--set", f"pusher.apps={file}", "--set", "dialects.pusher=true")
    assert alone.startswith(f"pusher.apps: {file} names a certificate, and devices would connect without TLS: ")
    files.key.unlink()
    (gone,) = refused(capsys, "start", "--micronotifier-config", file)
    assert gone == f"tls.key: {files.key} cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("redis", "url", "sentinels"),
    [
        ({"address": "h:1", "password": "p@", "database": 2}, "redis://:p%40@h:1/2", ()),
        ({"address": ":6379", "secure": True}, "rediss://localhost:6379/0", ()),
        ({"address": "h:1", "sentinel": True, "password": "p", "secure": True}, "redis://:p@localhost/0", ("h:1",)),
    ],
)
def test_the_redis_of_micronotifier_is_the_store(
    folder: Path, redis: dict[str, Any], url: str, sentinels: tuple[str, ...]
) -> None:
    found = settings_of("--micronotifier-config", Path(written(folder, {"redis": redis})))
    values = {key: value for _, key, value in found.settings}
    assert values["store.kind"] == "redis"
    assert values["redis.url"] == url
    assert tuple(values.get("redis.sentinels", ())) == sentinels  # type: ignore[arg-type]
    assert values.get("redis.replicas") == (1 if sentinels else None)
    assert repr(read(Path(written(folder, {"redis": redis}))).redis) == f"Redis({redis['address']!r})"


def test_a_micronotifier_without_redis_keeps_the_store(folder: Path) -> None:
    found = settings_of("--micronotifier-config", Path(written(folder, {"redis": {"address": "", "database": 1}})))
    assert not [key for _, key, _ in found.settings if key.startswith(("redis.", "store."))]


def test_a_file_of_micronotifier_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = refused(capsys, "start", "--micronotifier-config", "/dev/zero")
    assert told.startswith("--micronotifier-config: /dev/zero: is larger than")


@pytest.mark.parametrize("command", [["start"], ["worker", "--shard", "0"], ["router"], ["check-config"]])
def test_applications_that_cannot_be_read_are_told_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (told,) = refused(capsys, *command, "--set", "pusher.apps=none.json")
    assert told == "pusher.apps: none.json: cannot be read: No such file or directory"
    assert list(folder.iterdir()) == []


def test_a_dialect_that_is_off_needs_no_applications(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_force(capsys, "--set", "pusher.apps=none.json", "--set", "dialects.pusher=false")


def test_app_servers_may_come_to_the_device_port_where_that_is_set() -> None:
    assert SPEC.read_on_device_port(Settings([PusherOptions()])) is None
    assert SPEC.read_on_device_port(Settings([PusherOptions(one_port=True)])) == (b"/apps", b"/metrics")
