"""Devices that upgrade and then send nothing: what a connection costs by itself."""

from typing import Final

from bench.load.protocols.base import Protocol


class Bare(Protocol):
    """Set up as soon as it is upgraded."""


PROTOCOL: Final = Bare
