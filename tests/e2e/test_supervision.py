"""The supervisor against what fails beside the router and the workers: fork servers, new code, new settings, processes
that hang, signals that come too early; and how probes are answered meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import dialects, mirror
from support.farm_fixture import ROOT, UPGRADE, Farm, Json, Raw, command, curl, environ, refusal, running_farm, until
from support.mirror import Mirror

SETTINGS: Json = {
    "farm.hang_timeout": 2,
    "farm.spawn_timeout": 1,
    "farm.restart_max": 0.1,
    "farm.reload_watch": 0.5,
    "link.lease": 1,
    "link.heartbeat": 0.1,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that runs from a source tree and a settings file of its own."""
    folder = tmp_path_factory.mktemp("supervised")
    root = folder / "source"
    for package in ("farm", "router", "bench"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "farm.toml").write_text("")
    with running_farm(folder / "data", dialects.settings(folder) | SETTINGS, root=root) as farm:
        yield farm


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """The shared farm, well again."""
    shared.wait_healthy()
    return shared


def reload(farm: Farm) -> subprocess.CompletedProcess[str]:
    return command(farm, "reload", "--data", str(farm.data))


def pids(farm: Farm) -> list[int]:
    """Of the workers and the router."""
    status = farm.status()
    return [*(row["pid"] for row in status["workers"]), status["routers"][0]["pid"]]


def fork_server(farm: Farm) -> int:
    """The pid of the fork server."""
    until(lambda: farm.status()["fork_server"]["state"] == "up", "there is a fork server")
    pid: int = farm.status()["fork_server"]["pid"]
    return pid


@contextlib.contextmanager
def changed(file: Path, old: str, new: str) -> Iterator[None]:
    """A source file that is another one for a while."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        file.write_text(text)


# ---------------------------------------------------------------------- fork servers


def test_a_fork_server_that_dies_is_replaced_and_nobody_else_notices(farm: Farm) -> None:
    before, old = pids(farm), fork_server(farm)
    with dialects.reached(farm) as check:
        os.kill(old, signal.SIGKILL)
        until(lambda: fork_server(farm) != old, "there is another fork server")
        check()
    assert pids(farm) == before
    os.kill(before[0], signal.SIGKILL)  # whose parent is that fork server no more
    until(lambda: farm.worker_pid(0) not in (None, before[0]), "a worker that dies then is started again")
    farm.wait_healthy()
    assert list(farm.events("process.died"))[-1]["status"] == -signal.SIGKILL


def test_a_fork_server_that_stands_still_is_replaced_when_it_is_needed(farm: Farm) -> None:
    before, old = pids(farm), fork_server(farm)
    os.kill(old, signal.SIGSTOP)
    os.kill(before[2], signal.SIGKILL)
    until(lambda: farm.router_pid() not in (None, before[2]), "the router is started again")
    farm.wait_healthy()
    assert fork_server(farm) != old
    assert pids(farm)[:2] == before[:2]


def test_a_fork_server_that_stands_still_is_found_out_though_nobody_needs_it(farm: Farm) -> None:
    before, old = pids(farm), fork_server(farm)
    os.kill(old, signal.SIGSTOP)
    until(lambda: fork_server(farm) != old, "there is another fork server")
    assert pids(farm) == before


def test_a_supervisor_without_a_descriptor_left_goes_on(farm: Farm) -> None:
    before = pids(farm)
    limits = resource.prlimit(farm.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(farm.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        os.kill(before[0], signal.SIGKILL)
        until(lambda: list(farm.events("process.not_started")), "it cannot start another worker")
    finally:
        resource.prlimit(farm.pid, resource.RLIMIT_NOFILE, limits)
    until(lambda: farm.healthy() and pids(farm)[0] != before[0], "there is another worker")
    assert pids(farm)[1:] == before[1:]


# ---------------------------------------------------------------------- processes that hang


@pytest.mark.parametrize("which", [0, 2])
def test_a_process_that_hangs_is_replaced_and_the_others_are_not(farm: Farm, which: int) -> None:
    before = pids(farm)
    os.kill(before[which], signal.SIGSTOP)
    until(lambda: not farm.healthy(), "health says so")
    until(lambda: pids(farm)[which] not in (None, before[which]), "there is another one")
    farm.wait_healthy()
    after = pids(farm)
    assert [one for one in range(3) if after[one] != before[one]] == [which]
    assert list(farm.events("process.hangs"))[-1]["pid"] == before[which]


# ---------------------------------------------------------------------- reloads

LINK = '_LINK: [LOWEST_PROTOCOL, PROTOCOL]'
LINK_OF_THE_NEXT_VERSION = (LINK, '_LINK: [PROTOCOL, PROTOCOL + 1]')
LINK_OF_ANOTHER_AGE = (LINK, '_LINK: [PROTOCOL + 1, PROTOCOL + 2]')


def test_the_old_fork_server_dies_during_a_reload(farm: Farm) -> None:
    before, old = pids(farm), fork_server(farm)
    os.kill(farm.pid, signal.SIGHUP)
    until(lambda: farm.status()["reloading"], "the reload has begun")
    os.kill(old, signal.SIGKILL)
    until(lambda: not farm.status()["reloading"], "the reload is over")
    assert farm.status()["last_reload"]["outcome"] == "done"
    farm.wait_healthy()
    assert not set(before) & set(pids(farm))
    router = farm.router_pid()
    os.kill(router, signal.SIGKILL)  # it is still watched
    until(lambda: farm.router_pid() not in (None, router), "it is started again")
    farm.wait_healthy()


@pytest.mark.parametrize(
    ("file", "old", "new", "outcome", "why"),
    [
        ("farm/worker/main.py", "import gc", "this is no python (", "refused", "SyntaxError"),
        ("router/common/fork_server.py", "import gc", "import no_such_module", "refused", "no_such_module"),
        ("router/process.py", "import sys", "import os; os._exit(7)", "refused", "exit status 7"),
        (
            "router/process.py",
            "    options = settings.get(StoreOptions)",
            "    raise OSError('never')",
            "refused",
            "never",
        ),
        (
            "farm/worker/main.py",
            "nursery.start_soon(self._serve)",
            "nursery.start_soon(self._serve); await trio.sleep(0.1); raise KeyError('for long')",
            "refused",
            "for long",
        ),
        ("farm/supervisor/interface.py", *LINK_OF_ANOTHER_AGE, "refused", "needs a restart"),
        ("router/process.py", "await self.committer.open()", "raise OSError('enough')", "rolled back", "enough"),
    ],
)
def test_new_code_that_does_not_run_changes_nothing(
    farm: Farm, file: str, old: str, new: str, outcome: str, why: str
) -> None:
    before = pids(farm)
    with dialects.reached(farm) as check:
        with changed(farm.root / file, old, new):
            done = reload(farm)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"farm reload: {outcome}: ")
        assert why in line
        told = farm.status()["last_reload"]
        assert told["outcome"] == outcome
        assert why in told["why"]
        farm.wait_healthy()
        if outcome == "refused":
            assert pids(farm) == before
            check()
    with dialects.reached(farm) as check:
        check()
    assert "last reload" in command(farm, "status", "--admin-port", str(farm.admin_port)).stdout


def test_the_next_version_needs_no_restart_and_each_process_tells_which_it_is(farm: Farm) -> None:
    before = pids(farm)
    own = farm.status()["version"]
    with (
        changed(farm.root / "farm/supervisor/interface.py", *LINK_OF_THE_NEXT_VERSION),
        changed(farm.root / "router/__init__.py", f'"{own}"', '"77.1.0"'),
    ):
        done = reload(farm)
    assert (done.returncode, done.stderr) == (0, "")
    farm.wait_healthy()
    assert not set(before) & set(pids(farm))
    status = farm.status()
    assert {row["version"] for row in (*status["routers"], *status["workers"])} == {"77.1.0"}
    assert status["version"] == own
    printed = command(farm, "status", "--admin-port", str(farm.admin_port)).stdout
    assert f"versions: supervisor {own}, routers 77.1.0, workers 77.1.0: restart " in printed
    assert b'farm_processes{process="worker",version="77.1.0"} 2.0' in farm.admin("/metrics")[1]
    rows = json.loads(farm.admin("/api/v1/workers")[1])["workers"]
    assert [row["version"] for row in rows] == ["77.1.0"] * 2


def test_code_that_does_not_tell_its_version_is_understood(farm: Farm) -> None:
    with changed(farm.root / "farm/supervisor/runners.py", '"version": __version__, ', ""):
        assert reload(farm).returncode == 0
    farm.wait_healthy()
    status = farm.status()
    assert [row.get("version") for row in (*status["routers"], *status["workers"])] == [None] * 3
    assert status["version_note"] is None


def test_a_reload_reads_the_settings_again(farm: Farm) -> None:
    toml = farm.root / "farm.toml"
    toml.write_text('[worker]\norigins = ["https://good.example"]\n[store]\nkind = "memory"\n[token]\nkeys = ""\n')
    done = reload(farm)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("reload: done after ")
    assert second == "reload: changed, but needs a restart: store.kind"
    farm.wait_healthy()
    answer = refusal(
        farm.device_port,
        f"{UPGRADE}Origin: https://bad.example\r\n\r\n".encode(),
    )
    assert answer.status == 403
    before = pids(farm)
    toml.write_text("[worker]\nretry_after = 0\n")
    done = reload(farm)
    assert done.returncode == 1
    assert "farm.toml, line 2: worker.retry_after" in done.stderr
    assert pids(farm) == before
    toml.write_text("")
    assert reload(farm).returncode == 0


# ---------------------------------------------------------------------- signals


def test_hangups_while_it_starts_do_not_end_it(tmp_path: Path) -> None:
    farm = Farm(tmp_path / "data", SETTINGS, workers=1)
    try:
        with hangups(farm):
            farm.start()
        refused = [line["why"] for line in farm.events("reload.refused")]
        assert all("has not started" in why or "under way" in why for why in refused)
        until(lambda: not farm.status()["reloading"], "a reload that came through is done")
        os.kill(fork_server(farm), signal.SIGSTOP)  # and the end does not wait for a fork server that does not answer
    finally:
        farm.stop()


@contextlib.contextmanager
def hangups(farm: Farm) -> Iterator[None]:
    """SIGHUP to all processes of the farm again and again, from its first log line on."""
    code = (
        "import os, signal, sys, time\n"
        "log, data = sys.argv[1:]\n"
        "while not os.path.exists(log) or b'limits' not in open(log, 'rb').read(): time.sleep(0.002)\n"
        "while b'farm.ready' not in open(log, 'rb').read():\n"
        "  try: os.killpg(int(open(data + '/farm.pid').read()), signal.SIGHUP)\n"
        "  except (OSError, ValueError): pass\n"
        "  time.sleep(0.002)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(farm.log_file), str(farm.data)]) as process:
        try:
            yield
            assert process.wait(20) == 0
        finally:
            process.kill()  # which goes on for ever if the farm has not started


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", "2>&-"])
def test_a_start_with_closed_descriptors(tmp_path: Path, redirections: str) -> None:
    farm = Farm(tmp_path / "data", SETTINGS, workers=1)
    command = f'exec "$@" {redirections}'
    with subprocess.Popen(["sh", "-c", command, "sh", *farm.arguments()], cwd=ROOT, env=environ()) as process:
        try:
            until(lambda: (tmp_path / "data" / "router.sock").exists() or process.poll() is not None, "it has started")
            assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_a_supervisor_that_is_stopped_is_told_apart(farm: Farm) -> None:
    os.kill(farm.pid, signal.SIGSTOP)
    try:
        for name in ("reload", "drain"):
            done = command(farm, name, "--data", str(farm.data))
            assert done.returncode == 1
            assert f"supervisor {farm.pid} is stopped" in done.stderr
    finally:
        os.kill(farm.pid, signal.SIGCONT)


# ---------------------------------------------------------------------- what a balancer is told


def asked(farm: Farm, path: str, *more: str) -> list[tuple[int, Json]]:
    """A page on the admin port, the device port and the router port."""
    ports = (farm.admin_port, farm.device_port, farm.router_port)
    answers = [curl(*more, f"http://127.0.0.1:{port}{path}") for port in ports]
    return [(answer.status, json.loads(answer.body) if answer.body.startswith(b"{") else {}) for answer in answers]


def test_probes(farm: Farm) -> None:
    assert asked(farm, "/live") == [(200, {"status": "live"})] * 3
    assert asked(farm, "/ready") == [(200, {"status": "ready"})] * 3
    assert asked(farm, "/ready", "--head") == [(200, {})] * 3
    assert [status for status, _ in asked(farm, "/ready", "--request", "POST")] == [405] * 3
    for status, body in asked(farm, "/status/")[1:]:
        assert (status, body["status"]) == (200, "OK")
        assert {"clients", "version"} <= set(body)


def test_nothing_is_ready_without_a_router(farm: Farm) -> None:
    old = farm.router_pid()
    os.kill(old, signal.SIGSTOP)
    url = f"http://127.0.0.1:{farm.device_port}"
    until(lambda: curl(f"{url}/ready").status == 503, "the device port says so")
    assert curl(f"{url}/live").status == 200
    with ThreadPoolExecutor() as threads:  # at once: each waits for the router, and soon it is taken for hanging
        ready, status, metrics = threads.map(farm.admin, ("/ready", "/status", "/metrics"))
    assert ready == (503, b'{"status":"not ready","reasons":["no router answers"]}')
    assert json.loads(status[1])["unready"] == ["no router answers"]
    assert b"\nfarm_ready 0.0\n" in metrics[1]
    with contextlib.suppress(ProcessLookupError):
        os.kill(old, signal.SIGKILL)
    until(lambda: curl(f"{url}/ready").status == 200, "and when it is over")
    farm.wait_healthy()


def test_not_ready_comes_before_closed(tmp_path: Path) -> None:
    room = 20  # more than `dialects.reached` connects
    settings = dialects.settings(tmp_path) | SETTINGS
    settings |= {"drain.notice": 600, "worker.max_connections": room, "endpoint.max_connections": 2}
    environment = mirror.environment(tmp_path)
    with running_farm(tmp_path / "data", settings, workers=1, environment=environment) as farm:
        with contextlib.ExitStack() as full:
            for _ in range(room):
                full.enter_context(Mirror(farm))
            device_ready = f"http://127.0.0.1:{farm.device_port}/ready"
            assert curl(device_ready).json()["reasons"] == ["there is room for no connection"]
            until(lambda: farm.admin("/ready")[0] == 503, "the admin port says so too")
            assert asked(farm, "/ready")[2][0] == 200
        until(lambda: [status for status, _ in asked(farm, "/ready")] == [200] * 3, "there is room again")
        with Raw(farm.router_port) as one, Raw(farm.router_port) as other:
            for raw in (one, other):
                raw.send(b"GET /ready HTTP/1.1\r\n")  # in the middle of a request, so that neither is idle
            until(lambda: farm.admin("/ready")[0] == 503, "it says so of the router port too")
            assert b"no connection" in farm.admin("/ready")[1]
            assert curl(farm.url("/ready")).status == 503
        until(lambda: [status for status, _ in asked(farm, "/ready")] == [200] * 3, "there is room again")
        os.kill(farm.pid, signal.SIGTERM)
        until(lambda: [status for status, _ in asked(farm, "/ready")] == [503] * 3, "it says that it is about to stop")
        for _, body in asked(farm, "/ready"):
            assert body["reasons"] == ["the farm is about to stop"]
        assert [status for status, _ in asked(farm, "/live")] == [200] * 3
        with dialects.reached(farm) as check:
            check()
            os.kill(farm.pid, signal.SIGTERM)  # no more patience
            assert farm.wait_ended() == 0
            with pytest.raises(ConnectionRefusedError):
                Mirror(farm)
        assert json.loads(farm.log_file.read_text().splitlines()[-1])["event"] == "farm.stopped"
