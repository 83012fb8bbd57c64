"""The farm under test: started, stopped, asked; and its ports."""

import json
import socket
import sys
from pathlib import Path

import pytest
from support.bench import ended

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
        place = farm.admin.removeprefix("http://")
        assert json.loads(get(f"http://:s%2Fecret@{place}", "/")[1])["token"] == "Bearer s/ecret"
        monkeypatch.setenv("FARM_ADMIN_TOKEN", "of the variable")
        assert json.loads(get(farm.admin, "/")[1])["token"] == "Bearer of the variable"
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
