"""What a process says of its own memory."""

import os
import resource

from router.memory import resident_bytes


def test_without_a_descriptor_left_the_last_figure_stands() -> None:
    before = resident_bytes()
    assert before > 1_000_000
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open(os.devnull, os.O_RDONLY)
    os.close(taken)  # the lowest free one, and so the first that may not be had
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, limits[1]))
    try:
        assert resident_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert resident_bytes() > 1_000_000
