"""What a container of deploy/ asks of a farm, without Docker: to be process 1, with the settings of compose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from support.compose import compose, health_check
from support.farm_fixture import ROOT, curl, environ, until
from support.haproxy import program_and_environment
from support.installed import cannot, ends_with_us
from support.kubernetes import container, environment, resources
from support.redis_servers import RedisServer

from bench.machine.ports import free_ports

TOKEN: Final = "0123456789abcdef0123456789abcdef"
SECRETS: Final = {"VALKEY_PASSWORD": "secret", "ADMIN_READ_TOKEN": TOKEN, "GRAFANA_PASSWORD": "secret"}


def first_process() -> list[str]:
    """What a command line begins with so that its program is process 1 of a namespace."""
    root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [*ends_with_us(), "unshare", *root, "--pid", "--mount-proc", "--fork", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        cannot("this machine permits no process namespaces, so no farm can be process 1 here")
    return command


@contextmanager
def store(folder: Path) -> Iterator[RedisServer]:
    """Valkey with the options of compose; the password is left out, as its clients here have none."""
    command = compose(**SECRETS)["services"]["valkey"]["command"]
    at = command.index("--requirepass")
    server = RedisServer("valkey", folder, *command[1:at], *command[at + 2 :])
    try:
        yield server
    finally:
        server.stop()


class FirstProcess:
    """A farm as process 1, and what is done to it from outside."""

    def __init__(self, arguments: Sequence[str], variables: dict[str, str]) -> None:
        self._variables = environ() | {"PYTHONPATH": str(ROOT)} | variables
        self._outside = subprocess.Popen(
            [*first_process(), sys.executable, "-m", "farm", *arguments],
            cwd=ROOT,
            env=self._variables,
            stderr=subprocess.PIPE,
        )
        self._check = [part.replace(":8082", f":{variables['FARM_LISTEN_ADMIN_PORT']}") for part in health_check()]
        self._check[0] = sys.executable

    @property
    def pid(self) -> int:
        """As it is seen from here."""
        parent = self._outside.pid
        (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(child)

    def healthy(self) -> bool:
        """What the health check of the image says."""
        assert self._outside.poll() is None or not self._outside.stderr, self._outside.communicate()[1].decode()
        return self.checked() == 0

    def checked(self) -> int:
        return subprocess.run(self._check, capture_output=True, check=False).returncode

    def begin(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Run a command of the farm beside it, as `docker exec` and hooks of Kubernetes do."""
        assert command[0] == "farm"
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return subprocess.Popen(
            ["nsenter", "--target", str(self.pid), *user, "--pid", "--mount", sys.executable, "-m", *command],
            cwd=ROOT,
            env=self._variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def probed(self, name: str) -> int:
        """The status that a probe of the manifest is answered with."""
        path = container("farm")[name]["httpGet"]["path"]
        return curl(f"http://127.0.0.1:{self._variables['FARM_LISTEN_ADMIN_PORT']}{path}").status

    def ended(self) -> int:
        """Wait for its end. Returns: its exit code."""
        return self._outside.wait(30)

    def close(self) -> None:
        self._outside.kill()
        self._outside.communicate()


@contextmanager
def running(arguments: Sequence[str], variables: dict[str, str]) -> Iterator[FirstProcess]:
    farm = FirstProcess(arguments, variables)
    try:
        until(farm.healthy, "the health check of the image is content")
        yield farm
    finally:
        farm.close()


def own_places(folder: Path, valkey: RedisServer) -> dict[str, str]:
    """What several tests on one machine cannot have as it stands in deploy/, and that nobody waits."""
    ports = dict(zip(("DEVICE", "ROUTER", "ADMIN"), free_ports(3), strict=True))
    listen = {f"FARM_LISTEN_{name}_PORT": str(port) for name, port in ports.items()} | {"FARM_LISTEN_HOST": "127.0.0.1"}
    drain = {"FARM_DRAIN_NOTICE": "0", "FARM_DRAIN_SECONDS": "0"}
    return listen | drain | {"FARM_REDIS_URL": valkey.url, "FARM_DATA_DIR": str(folder / "data")}


def test_as_process_1_a_farm_of_compose_serves_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    given = compose(**SECRETS)["services"]["farm"]["environment"]
    with store(tmp_path) as valkey:
        given |= own_places(tmp_path, valkey)
        with running(["start", "--workers", "1"], given) as farm:
            metrics = (f"http://127.0.0.1:{given['FARM_LISTEN_ADMIN_PORT']}/metrics", "-H", "Host: farm:8082")
            assert curl(*metrics).status == 401
            assert curl(*metrics, "-H", f"Authorization: Bearer {TOKEN}").status == 200
            os.kill(farm.pid, signal.SIGTERM)
            assert farm.ended() == 0
            assert farm.checked() != 0


def test_the_hook_of_kubernetes_drains_a_farm_of_its_manifest_and_the_probes_say_so(tmp_path: Path) -> None:
    file, volume = tmp_path / "farm.toml", tmp_path / "volume"
    file.write_text(resources("ConfigMap")["farm"]["data"]["farm.toml"])
    volume.mkdir()
    volume.chmod(0o2777)  # as Kubernetes makes an emptyDir with an fsGroup
    key = "jIX10ykJZKK9-ZzEqqmdoFEODeXymwknevGUqMQ0oUs="
    base = free_ports(1)[0]
    with store(tmp_path) as valkey:
        places = own_places(volume, valkey)
        known = {"POD_IP": "127.0.0.1", "FARM_CLUSTER_NAME": "farm-0", "FARM_CLUSTER_BIND": f"127.0.0.1:{base}"}
        keys = {"FARM_TOKEN_KEYS": key, "FARM_CLUSTER_KEY": key, "FARM_ADMIN_READ_TOKEN": TOKEN}
        given = (
            places
            | environment("farm", places | known | keys)
            | {"FARM_ROUTER_ROUTERS": "1", "FARM_DRAIN_NOTICE": "60"}
        )
        arguments, hook = (
            [part.replace("/etc/farm/farm.toml", str(file)) for part in words]
            for words in (container("farm")["args"], container("farm")["lifecycle"]["preStop"]["exec"]["command"])
        )
        with running(arguments, given) as farm:
            assert {farm.probed(name) for name in ("startupProbe", "livenessProbe", "readinessProbe")} == {200}
            hooked = farm.begin(hook)
            until(lambda: farm.probed("readinessProbe") == 503, "Services send nothing more to the pod")
            assert farm.probed("livenessProbe") == 200, "a pod that drains must not be killed"
            os.kill(farm.pid, signal.SIGTERM)  # a second one ends the notice
            assert farm.ended() == 0
            # It may end with the farm, as what runs beside process 1 does.
            assert "Traceback" not in hooked.communicate(timeout=60)[1]


def test_haproxy_takes_its_configuration_of_compose(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(compose(**SECRETS)["configs"]["haproxy"]["content"])
    program, variables = program_and_environment()
    run = subprocess.run(
        [program, "-c", "-n", "5000", "-f", file], capture_output=True, text=True, env=variables, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "warning" not in (run.stdout + run.stderr).lower()
