"""Devices that upgrade and then say nothing: what a connection costs by itself."""

from bench.load.speech.base import Speech


class Bare(Speech):
    """Set up as soon as it is upgraded."""
