"""Debian's HAProxy with the configuration of deploy/, in front of farms of a test."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.machine.ports import free_ports
from support.farm_fixture import PATIENCE_S, ROOT, Farm, until
from support.installed import find_program

FILE: Final = ROOT / "deploy" / "haproxy.cfg"
_PROBES: Final = "check port 8081 inter 1s fall 2 rise 2"


class HAProxy:
    """A balancer that runs."""

    def __init__(self, device_port: int, router_port: int, control: Path) -> None:
        self.device_port = device_port
        self.router_port = router_port
        self._control = control

    def up(self) -> list[str]:
        """The hosts that it gives new devices to."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE_S)
            control.connect(str(self._control))
            control.sendall(b"show stat\n")
            with control.makefile(newline="") as answer:
                rows = list(csv.DictReader(line.removeprefix("# ") for line in answer if line.strip()))
        # One whose last probe has failed is "UP 1/2", and gets devices.
        hosts = [row for row in rows if row["pxname"] == "devices" and row["svname"] not in ("FRONTEND", "BACKEND")]
        return [row["svname"] for row in hosts if row["status"].startswith("UP")]


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
    program = Path(find_program("haproxy"))
    # Where tests/install-servers has unpacked it, its libraries are beside it.
    libraries = os.pathsep.join(map(str, program.parents[1].glob("lib/*-linux-gnu")))
    device_port, router_port = free_ports(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, control, log = folder / "haproxy.cfg", folder / "control", folder / "log"
        file.write_text(_configuration(farms, device_port, router_port, control))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "-db", "-f", file],
                env=os.environ | {"LD_LIBRARY_PATH": libraries},
                stdout=output,
                stderr=output,
            )
        try:
            until(lambda: control.exists() or process.poll() is not None, "HAProxy has its socket")
            assert process.poll() is None, log.read_text()
            yield HAProxy(device_port, router_port, control)
        finally:
            process.terminate()
            process.wait()
