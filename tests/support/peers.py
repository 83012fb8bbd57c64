"""The servers that the bench compares a farm with, as far as they are installed."""

import os
import sys
from pathlib import Path

from bench import peers
from bench.peers.base import NotInstalledError, Peer, Tools
from support.installed import missing

DEVICES = 200
NODE_MODULES = Path(__file__).parents[1] / "npm" / "node_modules"


def tools() -> Tools:
    """The machine's own, and npm's packages of the tests; PEERS_PYTHON and PEERS_NODE_MODULES name others."""
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    return Tools(python, os.environ.get("PEERS_NODE_MODULES", str(NODE_MODULES)), 1, DEVICES)


def installed(name: str) -> Peer:
    """The peer; without it the test is skipped, or with CI=true fails."""
    peer = peers.PEERS[name]
    try:
        peer.find(tools())
    except NotInstalledError as error:
        missing(f"{peer.title}, {error},")
    return peer
