"""The farm under test: started, stopped, asked; and its ports."""

import json
import socket
import sys
from pathlib import Path

import pytest
from support.bench import ended

from bench.commands.common import perform
from bench.errors import BenchError
from bench.farm_process import attach, get, started
from bench.interrupt import Interrupt
from bench.machine import ports

FAKE_FARM = """#!{python}
import http.server, json, os, sys
if {broken}:
    sys.exit("no such option")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        token = self.headers.get("Authorization")
        seen = dict(arguments=sys.argv[1:], cwd=os.getcwd(), env=dict(os.environ), token=token)
        self.wfile.write(json.dumps(seen).encode())
port = int(sys.argv[sys.argv.index("--admin-port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def fake_farm(path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    script = path / "farm"
    script.write_text(FAKE_FARM.format(python=sys.executable, broken=broken))
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))


def test_a_url_is_taken_apart() -> None:
    farm = attach("ws://127.0.0.1:90/a", "http://127.0.0.1:91/")
    assert (farm.address.port, farm.host, farm.path, farm.admin) == (
        90,
        "127.0.0.1:90",
        "/a",
        "http://127.0.0.1:91",
    )


URL = "ws://127.0.0.1:90/"
SECRET = "s" * 32


def test_a_token_goes_where_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("f" * 32)
    file.chmod(0o600)
    monkeypatch.setenv("FARM_ADMIN_TOKEN", SECRET)
    assert attach(URL, "http://127.0.0.1:91").token == SECRET
    assert attach(URL, "https://localhost:91/").token == SECRET
    for elsewhere in ("http://192.0.2.1:91", "https://farm.example:91", "http://127.0.0.1.example:91"):
        assert attach(URL, elsewhere).token == ""
        assert attach(URL, elsewhere, file).token == "f" * 32
    given = attach(URL, "http://:s%2Fecret@192.0.2.1:91/x")
    assert (given.admin, given.token) == ("http://192.0.2.1:91", "s/ecret")
    assert "ecret" not in repr(given)


@pytest.mark.parametrize("admin", ["http://:secret@host:port", "ftp://:secret@host", "http://:secret@", "//:secret@[x"])
def test_a_wrong_address_is_shown_without_its_token(admin: str) -> None:
    with pytest.raises(BenchError, match="expected an http:// or https:// URL") as error:
        attach(URL, admin)
    assert "secret" not in str(error.value)


def test_no_token_is_in_what_a_run_writes() -> None:
    options = {"admin": "http://:secret@192.0.2.1:91", "token_file": Path("token"), "devices": 3}
    written = perform("connect", options, lambda interrupt, progress: {})
    assert written["options"] == {"admin": "http://192.0.2.1:91", "devices": 3}


def test_a_farm_is_started_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_farm(tmp_path, monkeypatch, broken=False)
    monkeypatch.setenv("FARM_STORE_KIND", "memory")
    with started(3, "sqlite", Interrupt(), ("link.lease=9",)) as farm:
        seen = json.loads(get(farm.admin, "/")[1])
        assert seen["arguments"][:6] == ["-P", "-m", "farm", "start", "--workers", "3"]
        assert seen["arguments"][-6:] == [
            "--set",
            "store.kind=sqlite",
            "--set",
            "drain.seconds=1",
            "--set",
            "link.lease=9",
        ]
        assert "FARM_STORE_KIND" not in seen["env"]
        assert seen["token"] is None
        assert json.loads(get(farm.admin, "/", "s/ecret")[1])["token"] == "Bearer s/ecret"
        assert farm.supervisor is not None
    assert not Path(seen["cwd"]).exists()
    assert ended(farm.supervisor)


def test_a_farm_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_farm(tmp_path, monkeypatch, broken=True)
    with pytest.raises(BenchError, match="code 1 at its start:\nno such option"), started(1, "sqlite", Interrupt()):
        raise AssertionError


def test_free_ports_are_none_that_the_kernel_gives_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "sysctl", lambda name: "10100 65535")
    found = ports.free_ports(3)
    assert len(set(found)) == 3
    assert all(ports.FIRST <= port < 10_100 for port in found)


def test_ports_that_are_taken_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(ports, "sysctl", lambda name: f"{taken + 1} 65535")
        monkeypatch.setattr(ports, "FIRST", taken)
        (found,) = ports.free_ports(1)  # one of the kernel's, as no other is left
        assert found != taken
