"""What the bench's fork server imports, and what can be forked from it: each kind of load process.

A load process that starts as `python -m` costs 8 MB before it holds a device; forked, about 2.
"""

from collections.abc import Callable
from typing import Any

from bench.load import batchers, devices, publishers, pushers, subscribers
from router.common.fork_server import Runner, Served


def served(argument: Any) -> Served:
    """For `router.common.fork_server`. Each process inherits its link to the bench, whose end ends it."""
    kinds = (devices, subscribers, pushers, batchers, publishers)
    return Served({module.__name__.rpartition(".")[2]: _runner(module.main) for module in kinds}, "farm bench")


def _runner(main: Callable[[int], None]) -> Runner:
    def run(number: int, descriptors: list[int]) -> int:
        main(descriptors[0])
        return 0

    return run
