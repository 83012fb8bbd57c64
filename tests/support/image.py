"""The image of deploy/Dockerfile, built and run as containers are, but for Docker, a registry and a cluster.

    python -m support.image        (`make test-image`; as root)

debootstrap makes what the image is FROM: Debian with its own Python, under the name that stands in the Dockerfile,
which is used as it is. buildah builds, with the packages of the index that pip is configured for here. crun runs the
container: with namespaces, without capabilities, on a file system that can only be read, with the limits and sysctls
of compose.yaml. It has no control group, so nothing limits its memory or CPU. Ends with 1 where something is not as
it should be, and with 3 and the reason where this machine permits no containers.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from support.compose import DOCKERFILE, compose, health_check, instructions
from support.farm_fixture import until
from support.sources import ROOT

CACHE: Final = ROOT / "build" / "image"
"""Where the base stays for the next time; `make clean` removes it."""
PACKAGES: Final = "python3,python3-venv,python3-distutils,python3-lib2to3,python-is-python3,ca-certificates"
"""Of the base; debootstrap chooses nothing for what several packages provide, so each one is named."""
DATA: Final = "/var/lib/farm"
USER: Final = 10001
ID: Final = "farm-image-test"
_PIP: Final = frozenset(("index-url", "extra-index-url", "trusted-host", "proxy", "cert"))
_PATIENCE_S: Final = 120.0
_NO_GROUPS: Final = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"', "sh")
"""What a command line begins with so that its program finds no control groups, of either version, and changes none."""


class Failed(AssertionError):
    """Something is not as it should be."""


class Impossible(Exception):
    """This machine cannot do it."""


def says(text: str) -> None:
    print(f"test-image: {text}", flush=True)


def run(*command: str | Path, impossible: bool = False) -> str:
    """Returns: what it prints. Raises: Failed, or Impossible, where it ends with another code than 0."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        kind = Impossible if impossible else Failed
        raise kind(f"{' '.join(map(str, command[:6]))} ... ended with {done.returncode}: {' | '.join(last)}")
    return done.stdout


def install() -> None:
    """What builds and runs images. Raises: Impossible."""
    if os.geteuid():
        raise Impossible("only root may build an image with debootstrap and buildah")
    missing = [name for name in ("buildah", "crun", "debootstrap") if shutil.which(name) is None]
    if missing and shutil.which("apt-get") is None:
        raise Impossible(f"not found, and no apt-get to install it by: {' '.join(missing)}")
    if missing:
        says(f"installing {' '.join(missing)}")
        command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            run("apt-get", "update", "--quiet", impossible=True)
            run(*command, impossible=True)


def base() -> Path:
    """The root file system that the image is FROM, made unless it is there from before."""
    folder = CACHE / "base"
    if not folder.exists():
        says("making the base by debootstrap, which takes some minutes")
        CACHE.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=CACHE))
        try:
            release = instructions("FROM")[-1].rpartition("-")[2]
            run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, part, impossible=True)
            part.chmod(0o755)
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return folder


class Builder:
    """buildah, with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begin = ("buildah", "--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs")

    def __call__(self, *command: str | Path, impossible: bool = False) -> str:
        return run(*self._begin, *command, impossible=impossible).strip()

    def give(self, folder: Path, name: str) -> None:
        """An image of this folder."""
        made = self("from", "scratch", impossible=True)
        self("add", "--quiet", made, folder, "/", impossible=True)
        self("commit", "--quiet", "--rm", made, f"docker.io/library/{name}")

    def build(self) -> str:
        """Returns: the name of the image."""
        pip = self._folder / "pip.conf"
        pip.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip_settings().items()))
        mounts = [f"--volume={pip}:/etc/pip.conf:ro", "--volume=/etc/ssl/certs:/etc/ssl/certs:ro"]
        options = ["--isolation", "chroot", "--pull-never", "--format", "docker", *mounts]
        self("bud", *options, "--file", DOCKERFILE, "--tag", "farm", ROOT)
        return "localhost/farm"

    def close(self) -> None:
        self("rm", "--all")
        self("rmi", "--all", "--force")


def pip_settings() -> dict[str, str]:
    """Where pip takes packages from here, for pip in the image."""
    lines = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    rows = (line.partition("=") for line in lines)
    found = {name.rpartition(".")[2]: value.strip("'") for name, _, value in rows}
    return {key: value for key, value in found.items() if key in _PIP and "file:" not in value}


def specification(config: dict[str, Any], root: Path, volume: Path) -> dict[str, Any]:
    """Of a container (OCI runtime specification), as Docker makes it of the image's settings and compose.yaml's."""
    secrets = dict.fromkeys(("VALKEY_PASSWORD", "ADMIN_READ_TOKEN", "GRAFANA_PASSWORD"), "x")
    service = compose(**secrets)["services"]["farm"]
    user, group = map(int, config["User"].split(":"))
    files = min(service["ulimits"]["nofile"]["hard"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    memory = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec", "mode=1777"]}
    return {
        "ociVersion": "1.0.2",
        "hostname": "farm",
        "root": {"path": str(root), "readonly": service["read_only"]},
        "process": {
            "user": {"uid": user, "gid": group},
            "args": [*config["Entrypoint"], "start", "--workers", "2"],
            "env": config["Env"],
            "cwd": config["WorkingDir"],
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": files, "soft": files}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *({"destination": each, **memory} for each in ("/dev/shm", *service["tmpfs"])),
            {"destination": DATA, "type": "bind", "source": str(volume), "options": ["bind", "rw"]},
        ],
        "linux": {
            "namespaces": [{"type": each} for each in ("pid", "mount", "ipc", "uts", "network")],
            "sysctl": {name: str(value) for name, value in service["sysctls"].items()},
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/irq"],
        },
    }


class Container:
    """One that runs, of a bundle (a folder with config.json)."""

    def __init__(self, bundle: Path) -> None:
        self._crun = (*_NO_GROUPS, "crun", "--root", bundle / "state", "--cgroup-manager=disabled")
        self.log = bundle / "log"
        with self.log.open("ab") as log:
            command = list(map(str, (*self._crun, "run", "--bundle", bundle, ID)))
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` does."""
        whole = list(map(str, (*self._crun, "exec", ID, *command)))
        return subprocess.run(whole, capture_output=True, text=True, check=False)

    def healthy(self) -> bool:
        """What the health check says."""
        if self._process.poll() is not None:
            last = self.log.read_text().strip().splitlines()[-3:]
            raise Failed(f"the container ended with {self._process.returncode}: {' | '.join(last)}")
        return self.execute(*health_check()).returncode == 0

    def processes(self) -> dict[int, dict[str, str]]:
        """What /proc/PID/status says of each, by its number in the container."""
        lines = self.execute("sh", "-c", "cd /proc; for p in [0-9]*; do cat $p/status 2>/dev/null; echo; done").stdout
        parts = (each.splitlines() for each in lines.split("\n\n"))
        rows = [dict(line.split(":\t", 1) for line in part if ":\t" in line) for part in parts]
        return {int(row["Pid"]): row for row in rows if "Pid" in row}

    def stop(self) -> int:
        """Send SIGTERM. Returns: the exit code."""
        run(*self._crun, "kill", ID, "TERM")
        try:
            return self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Failed("SIGTERM does not end it") from None

    def close(self) -> None:
        if self._process.poll() is None:
            subprocess.run([*map(str, self._crun), "delete", "--force", ID], capture_output=True, check=False)
        self._process.wait()


@contextmanager
def running(bundle: Path) -> Iterator[Container]:
    container = Container(bundle)
    try:
        until(container.healthy, "the health check of the image is content", _PATIENCE_S)
        yield container
    finally:
        container.close()


def expect(true: object, what: str) -> None:
    """Raises: Failed."""
    if not true:
        raise Failed(what)


def try_container(bundle: Path, volume: Path) -> None:
    """Raises: Failed."""
    with running(bundle) as container:
        says("the health check is content, with a file system that is only read and without capabilities")
        farm = {number: row for number, row in container.processes().items() if row["Name"] != "sh"}
        expect(1 in farm and len(farm) > 4, f"too few processes: {farm.keys()}")
        for row in farm.values():
            expect(row["Uid"].split() == [str(USER)] * 4, f"{row['Name']} has the users {row['Uid']}")
            expect(int(row["CapEff"], 16) == 0 and row["NoNewPrivs"] == "1", f"{row['Name']} may do more")
        says(f"process 1 and {len(farm) - 1} others are user {USER}")
        refused = container.execute("sh", "-c", "echo x > /opt/farm/x")
        expect("Read-only file system" in refused.stderr, f"its own files can be written: {refused}")
        seen = container.execute("farm", "status")
        expect(seen.returncode == 0 and "worker" in seen.stdout, f"farm status: {seen}")

        # Its parent ends before it does, so it becomes a child of process 1.
        left = container.execute("sh", "-c", "sleep 0.5 >/dev/null 2>&1 & echo $!").stdout.strip()
        until(lambda: int(left) not in container.processes(), "process 1 collects what was left behind", _PATIENCE_S)
        says("process 1 collects what others leave behind")
        expect(container.stop() == 0, f"it did not end well: {container.log.read_text()[-500:]}")
        says("SIGTERM ends it, with exit code 0")
    key = volume / "token.key"
    expect(key.stat().st_uid == USER and key.stat().st_mode & 0o777 == 0o600, "the token key is not the farm's alone")
    before = key.read_bytes()
    with running(bundle) as container:
        expect(container.stop() == 0, "the second one did not end well")
    expect(key.read_bytes() == before, "the volume was not kept")
    says("another container goes on with the volume")


def size(folder: Path) -> str:
    blocks = sum(file.lstat().st_blocks for file in folder.rglob("*") if not file.is_dir())
    return f"{blocks * 512 / 2**20:.0f} MiB"


def test(folder: Path) -> None:
    """Raises: Failed, Impossible."""
    builder = Builder(folder)
    try:
        name = instructions("FROM")[-1]
        builder.give(base(), name)
        says(f"building on Debian with its own Python as {name}")
        image = builder.build()
        config = json.loads(builder("inspect", "--type", "image", image))["Docker"]["config"]
        expect(config["Healthcheck"]["Test"] == ["CMD", *health_check()], "the image has no health check")
        expect(list(config["Volumes"]) == [DATA], "the image's volume is another one")
        made = builder("from", "--pull-never", image)
        root = Path(builder("mount", made))
        says(f"the image has {size(root)}, of which the base has {size(base())} and the farm {size(root / 'opt/farm')}")
        volume = folder / "volume"  # as Docker makes it: what the image has there, with its owner
        run("cp", "--archive", root / DATA.lstrip("/"), volume)
        (folder / "config.json").write_text(json.dumps(specification(config, root, volume)))
        try_container(folder, volume)
    finally:
        builder.close()


def main(arguments: Sequence[str]) -> int:
    """Returns: the exit code."""
    if arguments:
        print(__doc__)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: container and storage go
    try:
        install()
        with tempfile.TemporaryDirectory(prefix="farm-image-") as folder:
            test(Path(folder))
    except Impossible as error:
        print(f"test-image: cannot be done here: {error}", file=sys.stderr)
        return 3
    except AssertionError as error:
        print(f"test-image: FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
