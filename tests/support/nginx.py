"""Debian's nginx with a configuration of ours, in front of a farm."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.machine.ports import free_ports
from support.farm_fixture import until
from support.installed import find_program

_CONFIGURATION = """
daemon off;
pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {included};
}}
"""


def _accepts(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_nginx(file: Path, listen: Sequence[str], changes: dict[str, str]) -> Iterator[Sequence[int]]:
    """nginx with this file included, for the time of the block.

    listen: what of the file is replaced by `listen` on ports of ours. changes: what else is replaced.
    Value: the ports.
    """
    program = find_program("nginx")
    ports = free_ports(len(listen))
    text = file.read_text()
    listens = {old: f"listen 127.0.0.1:{port}" for old, port in zip(listen, ports, strict=True)}
    for old, new in {**listens, **changes}.items():
        assert old in text
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        included, whole = folder / "included.conf", folder / "nginx.conf"
        included.write_text(text)
        whole.write_text(_CONFIGURATION.format(folder=folder, included=included))
        command = [program, "-p", str(folder), "-e", str(folder / "log"), "-c", str(whole)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            until(lambda: _accepts(ports[0]) or process.poll() is not None, "nginx listens")
            assert process.poll() is None, process.communicate()[1].decode()
            yield ports
        finally:
            process.terminate()
            process.communicate()
