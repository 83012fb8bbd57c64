"""The fork server on its own, as far as that goes without a supervisor."""

import socket
import subprocess
import sys

import msgspec
from support.farm_fixture import ROOT, environ

from farm.sections import all_sections
from router.common.options import Settings, as_mapping


def test_one_whose_supervisor_has_gone_while_it_began_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"import sys, router.common.fork_server as server; sys.exit(server.main({theirs.fileno()}))"
    settings = as_mapping(Settings(section() for section in all_sections()))
    with theirs:
        first = {"served": "farm.supervisor.runners:served", "argument": settings}
        ours.send(msgspec.json.encode(first))
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ(), pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True
        )
    ours.shutdown(socket.SHUT_RD)  # it still reads the settings, and cannot answer
    ours.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
