"""Debian's HAProxy with the configuration of deploy/, in front of farms of a test."""

from __future__ import annotations

import csv
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.machine.ports import free_ports
from support.farm_fixture import PATIENCE_S, ROOT, Farm, until
from support.installed import find_program, with_libraries

FILE: Final = ROOT / "deploy" / "haproxy.cfg"
CLUSTER_FILE: Final = ROOT / "deploy" / "haproxy-cluster.cfg"
TLS_FILE: Final = ROOT / "deploy" / "haproxy-tls.cfg"
_PROBES: Final = "check port 8081 inter 1s fall 2 rise 2"


class HAProxy:
    """A balancer that runs."""

    def __init__(self, device_port: int, router_port: int, control: Path) -> None:
        self.device_port = device_port
        self.router_port = router_port
        self._control = control

    def up(self, proxy: str = "devices") -> list[str]:
        """The hosts that it gives new devices, or requests, to."""
        # One whose last probe has failed is "UP 1/2", and gets devices.
        rows = csv.DictReader(self._ask("show stat").removeprefix("# ").splitlines())
        hosts = [row for row in rows if row["pxname"] == proxy and row["svname"] not in ("FRONTEND", "BACKEND")]
        return [row["svname"] for row in hosts if row["status"].startswith("UP")]  # "no check" is that of a backup

    def hosts_of_devices(self) -> dict[int, str]:
        """The host of each device's connection, by the port that the device has it from."""
        found = {}
        for line in self._ask("show sess").splitlines():
            facts = dict(part.split("=", 1) for part in line.split() if "=" in part)
            if facts.get("fe") == "devices" and facts.get("srv", "<none>") != "<none>":
                found[int(facts["src"].rpartition(":")[2])] = facts["srv"].removesuffix("-anyway")
        return found

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE_S)
            control.connect(str(self._control))
            control.sendall(command.encode() + b"\n")
            with control.makefile(newline="") as answer:
                return answer.read()


def _configuration(farms: Sequence[Farm], device_port: int, router_port: int, control: Path) -> str:
    """That of deploy/, for these farms, with probes that follow each other faster."""
    text = FILE.read_text()
    changes = {
        "maxconn 100000": f"maxconn 1000\n    stats socket {control}",
        "bind :8080": f"bind 127.0.0.1:{device_port}",
        "bind :8081": f"bind 127.0.0.1:{router_port}",
        _PROBES: "check inter 50ms fall 2 rise 2",
    }
    for number, farm in enumerate(farms, 1):
        changes[f"10.0.0.{number}:8080"] = f"127.0.0.1:{farm.device_port} port {farm.router_port}"
        changes[f"10.0.0.{number}:8081"] = f"127.0.0.1:{farm.router_port} port {farm.router_port}"
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def running_haproxy(farms: Sequence[Farm]) -> Iterator[HAProxy]:
    """HAProxy in front of as many farms as the file has hosts, for the time of the block."""
    device_port, router_port = free_ports(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, control = folder / "haproxy.cfg", folder / "control"
        file.write_text(_configuration(farms, device_port, router_port, control))
        with _running(folder, control, "-f", file):
            yield HAProxy(device_port, router_port, control)


@contextmanager
def running_haproxy_with_tls(farm: Farm, pem: Path, source: str) -> Iterator[HAProxy]:
    """HAProxy with TLS in front of one farm. pem: certificate and key. source: the address that it connects from."""
    device_port, router_port = free_ports(2)
    text = TLS_FILE.read_text()
    probes = f"check port {farm.router_port} inter 50ms fall 2 rise 2"
    changes = {
        "maxconn 100000": "maxconn 500",
        "cachesize 100000": "cachesize 1000",
        "bind :8443": f"bind 127.0.0.1:{device_port}",
        "bind :8444": f"bind 127.0.0.1:{router_port}",
        "crt /etc/haproxy/push.pem": f"crt {pem}",
        "check port 8081 inter 1s fall 2 rise 2": f"{probes} source {source}",
        "    server b 10.0.0.2:8080\n": "",
        "    server b 10.0.0.2:8081\n": "",
        "10.0.0.1:8080": f"127.0.0.1:{farm.device_port}",
        "10.0.0.1:8081": f"127.0.0.1:{farm.router_port}",
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, control = folder / "haproxy.cfg", folder / "control"
        file.write_text(text.replace("global\n", f"global\n    stats socket {control}\n", 1))
        with _running(folder, control, "-f", file):
            yield HAProxy(device_port, router_port, control)


@contextmanager
def running_haproxy_of_a_cluster() -> Iterator[HAProxy]:
    """HAProxy with the file of deploy/ as it is, on the ports and for the addresses that it names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, control = folder / "more.cfg", folder / "control"
        file.write_text(f"global\n    stats socket {control}\n")
        with _running(folder, control, "-f", CLUSTER_FILE, "-f", file, "-n", "5000"):  # descriptors are few here
            yield HAProxy(8080, 8081, control)


def program_and_environment() -> tuple[Path, dict[str, str]]:
    """The program, and the variables that it is run with."""
    program = Path(find_program("haproxy"))
    return program, with_libraries(program)


@contextmanager
def _running(folder: Path, control: Path, *arguments: Path | str) -> Iterator[None]:
    program, environment = program_and_environment()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-db", *arguments],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: control.exists() or process.poll() is not None, "HAProxy has its socket")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait()
