"""The programs in examples/, as they stand there, against one farm. Those that send in bulk, and the main server, have
tests of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import websocket
from support.admin_api import api
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import PATIENCE_S, ROOT, Farm, curl, environ, running_farm, until
from support.gopush2 import new_key
from support.installed import NPM, find_program, npm_file
from support.interpreters import Interpreter, php, ruby
from support.processes import printing
from support.pushstream import Socket, new_channel
from support.simplepush import Device, put
from support.web_site import Reply, Request, Site
from support.webpush import UserAgent
from support.webpush_demo import Receiver, decoded

EXAMPLES: Final = ROOT / "examples"
LEFT_THERE: Final = ("node_modules", "package*.json", "*.pem", "__pycache__")
"""By who has run them in their folder."""
PROGRAMS: Final = (".php", ".rb", ".mjs", ".py", ".sh")
DATA: Final = {"text": 'Grüße "<&>" \\', "number": 7}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {
        "pusher.apps": EXAMPLES / "pusher_apps.json",
        "dialects.gopush2": True,
        "dialects.pushstream": True,
        "store.kind": "memory",
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, workers=1) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, with npm's packages beside them, as after npm install."""
    found = tmp_path_factory.mktemp("as-installed") / "examples"
    shutil.copytree(EXAMPLES, found, ignore=shutil.ignore_patterns(*LEFT_THERE))
    (found / "node_modules").symlink_to(NPM / "node_modules")
    return found


def run(interpreter: Interpreter, cwd: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*interpreter.command, *arguments],
        cwd=cwd,
        env=environ() | interpreter.environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def succeeded(interpreter: Interpreter, cwd: Path, *arguments: str, stdin: str = "") -> str:
    """Run a program that must end with 0. Returns: what it has printed."""
    done = run(interpreter, cwd, *arguments, stdin=stdin)
    assert done.returncode == 0, done
    return done.stdout


def node(package: str = "") -> Interpreter:
    program = find_program("node")
    if package:
        npm_file(f"{package}/package.json")
    return Interpreter([program], {})


def shell(farm: Farm) -> Interpreter:
    find_program("curl"), find_program("openssl")
    return Interpreter(["sh", "curl.sh"], {"FARM": farm.url(""), "NO_PROXY": "*"})


def says_where(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a program has ended with a stack trace, which helps nobody who has only called it wrongly."""
    return "Traceback" in done.stderr or "    at " in done.stderr or len(done.stderr.splitlines()) > 2


def interpreter_of(name: str) -> Interpreter:
    ways = {".php": php, ".rb": ruby, ".mjs": node, ".py": lambda: Interpreter([sys.executable], {})}
    return Interpreter(["sh"], {}) if name == "curl.sh" else ways[Path(name).suffix]()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in PROGRAMS))
def test_wrong_usage_is_one_line_of_help(folder: Path, name: str) -> None:
    for arguments in [(), ("simplepush",)] if name == "curl.sh" else [(), ("nonsense", *"abcdef")]:
        done = run(interpreter_of(name), folder, name, *arguments)
        assert done.returncode == 2 and not done.stdout, done
        assert done.stderr.startswith("usage: ") and len(done.stderr.splitlines()) == 1, done
    assert not list(folder.glob("*.pem")), "nothing is left behind"


# ---------------------------------------------------------------------- senders


@contextmanager
def subscribed(farm: Farm, channel: str) -> Iterator[Any]:
    """A subscriber of the application in pusher_apps.json. Yields: what waits for its next message."""
    socket = websocket.create_connection(f"{farm.device_url}app/shop-key?protocol=7", timeout=PATIENCE_S)
    try:
        socket.recv()
        socket.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}}))
        socket.recv()
        yield lambda: json.loads(socket.recv())
    finally:
        socket.shutdown()


@pytest.mark.parametrize("name", ["pusher_send.php", "pusher_send.rb", "pusher_send.mjs", "curl.sh"])
def test_an_event_by(farm: Farm, folder: Path, name: str) -> None:
    if name == "pusher_send.mjs":
        npm_file("pusher/package.json")
    if name == "curl.sh":
        interpreter, first = shell(farm), ["pusher"]
    else:
        interpreter, first = interpreter_of(name), [name, farm.url("")]
    with subscribed(farm, "news") as message:
        printed = succeeded(interpreter, folder, *first, "news", "hello", json.dumps(DATA, ensure_ascii=False))
        event = message()
        assert (event["event"], event["channel"], json.loads(event["data"])) == ("hello", "news", DATA)
    assert printed.endswith("{}\n") or printed == "{}"
    refused = run(interpreter, folder, *first, "no such channel!", "hello", "{}")
    assert refused.returncode != 0 and not says_where(refused), refused


def test_an_encrypted_push(farm: Farm, folder: Path) -> None:
    receiver, python = Receiver(), Interpreter([sys.executable], {})
    with UserAgent(farm) as browser:
        subscription = {"endpoint": browser.register()[1], "keys": receiver.keys}
        text = json.dumps(DATA)
        printed = [succeeded(python, folder, "webpush_send.py", text, stdin=json.dumps(subscription)) for _ in range(2)]
        assert printed[0] == printed[1] and printed[0].endswith("\n201\n")  # its key is kept
        first, second = browser.notes(2)
        assert [receiver.decrypted(decoded(note["data"])) for note in (first, second)] == [DATA, DATA]
        gone = subscription | {"endpoint": f"{subscription['endpoint'][:-3]}AAA"}
        refused = run(python, folder, "webpush_send.py", text, stdin=json.dumps(gone))
        assert refused.returncode == 1 and "404" in refused.stderr
    for nonsense in ("", "{}", '{"endpoint": "", "keys": {}}'):
        refused = run(python, folder, "webpush_send.py", text, stdin=nonsense)
        assert refused.returncode == 1 and not says_where(refused), refused


def test_curl(farm: Farm, folder: Path) -> None:
    sh = shell(farm)
    with UserAgent(farm) as browser:
        succeeded(sh, folder, "webpush", browser.register()[1])
        assert "data" not in browser.notes(1)[0]
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        succeeded(sh, folder, "simplepush", endpoint, "5")
        assert device.updates() == [(channel, 5)]
    news = new_channel()
    with Socket(farm, f"ws/{news}") as subscriber:
        succeeded(sh, folder, "pushstream", news, "@hello")
        assert subscriber.message()["text"] == "@hello"
    assert run(sh, folder, "smoke", "signals").returncode == 2


# ---------------------------------------------------------------------- devices


LOADED: Final = 0.2
"""What the dice show: devices come back after LOADED x 10 s, so that a test need not wait for all of them."""
DICE_OF_PYTHON: Final = f"""
import random, runpy, sys
random.random = lambda: {LOADED}
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
DICE_OF_NODE: Final = f"--import=data:text/javascript,Math.random=()=>{LOADED}"


def let_go(farm: Farm) -> None:
    """Replace the only worker; returns when its devices have been let go."""
    status, begun = api(farm, "POST", "/workers/0/restart")
    assert status == 200, begun

    def over() -> bool:
        last = api(farm, "GET", "/workers")[1]["replacement"]
        return bool(last["number"] == begun["number"] and last["outcome"] != "running")

    until(over, "the worker is replaced")


def test_a_device_in_python_that_comes_back(farm: Farm, folder: Path) -> None:
    python = [sys.executable, "-c", DICE_OF_PYTHON, "simplepush_device.py"]
    with printing(*python, farm.device_url, cwd=folder) as lines:
        endpoint = next(lines)
        for version in (1, 2):
            assert put(endpoint, version) == 200
            assert next(lines).endswith(f" {version}")
        let_go(farm)
        assert put(endpoint, 3) in (200, 202)
        assert next(lines).endswith(" 3")


def test_a_device_in_node_that_comes_back_with_another_token(farm: Farm, folder: Path) -> None:
    (program,), key = node("ws").command, new_key()
    command = [program, DICE_OF_NODE, "gopush2_device.mjs", farm.device_url[:-1], key, farm.url("")]
    succeeded(shell(farm), folder, "gopush2", key, "before it came")
    with printing(*command, cwd=folder) as lines:
        assert next(lines).endswith(" before it came")
        succeeded(shell(farm), folder, "gopush2", key, "now")
        assert next(lines).endswith(" now")
        let_go(farm)
        succeeded(shell(farm), folder, "gopush2", key, "meanwhile")
        assert next(lines).endswith(" meanwhile")


def test_a_subscriber_in_node_that_misses_nothing(farm: Farm, folder: Path) -> None:
    (program,), news = node().command, new_channel()
    address = f"http://127.0.0.1:{farm.device_port}/ev/{news}"
    with printing(program, DICE_OF_NODE, "pushstream_device.mjs", address, cwd=folder) as lines:
        assert next(lines) == "connected"
        for texts in (["before any event"], ["one", "two"]):
            let_go(farm)
            for text in texts:
                assert curl("--data", text, farm.url(f"/pub?id={news}")).status == 200
            told = [line for line in islice(lines, 1 + len(texts)) if line != "connected"]
            assert [json.loads(line)["text"] for line in told] == texts


# ---------------------------------------------------------------------- web pages


class Folder(Site):
    """Serves a folder, as python -m http.server does."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def get(self, request: Request) -> Reply:
        file = self._folder / urlsplit(request.path).path[1:]
        if not file.is_file():
            return Reply("", status=404)
        kind = "text/html" if file.suffix == ".html" else "text/javascript"
        return Reply(file.read_text(encoding="utf-8"), kind)


def test_web_pages(farm: Farm, folder: Path, tmp_path: Path) -> None:
    npm_file("laravel-echo/package.json")
    sender = node("pusher")
    with Folder(folder) as site, Chromium(find_chromium(), tmp_path) as chromium, Tab(chromium) as tab:

        def text(element: str) -> str:
            return str(tab.evaluate(f"document.querySelector('#{element}').textContent"))

        tab.open(site.url(f"/simplepush_page.html?farm={farm.device_url}"))
        endpoint = until(lambda: found if (found := text("endpoint")).startswith("http") else "", "the endpoint")
        assert put(endpoint, 9) == 200
        until(lambda: text("updates").endswith(" 9"), "the update")
        tab.evaluate(f"(Math.random = () => {LOADED}, null)")
        let_go(farm)
        assert put(endpoint, 10) in (200, 202)
        until(lambda: text("updates").endswith(" 10"), "the update, after it has come back")

        tab.open(site.url(f"/pusher_echo.html?port={farm.device_port}"))
        until(lambda: text("state") == "subscribed", "the subscription")
        for event, shown in (("hello", "hello"), ("App\\Events\\OrderShipped", "OrderShipped")):
            succeeded(sender, folder, "pusher_send.mjs", farm.url(""), "news", event, json.dumps(DATA))
            until(lambda shown=shown: text("events").count(shown), f"{shown} on the page")
        # What came is shown as text.
        assert text("events").count('Grüße \\"<&>\\" \\\\') == 2


# ---------------------------------------------------------------------- the index


def test_every_example_is_in_the_index_and_run_by_a_test() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "e2e").glob("test_*.py"))
    found = os.listdir(EXAMPLES)
    names = set(found) - {"README.md"} - shutil.ignore_patterns(*LEFT_THERE)(str(EXAMPLES), found)
    assert names
    for name in names:
        assert f"[{name}]({name})" in index
        assert name in tests or f'"{Path(name).stem}", "examples"' in tests
