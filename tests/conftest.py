"""What holds for every test: the same examples on a slow machine as on a fast one, and nothing left in the tree."""

import gc
import os
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings
from support import farm_fixture
from support.often import often

gc.disable()  # while tests are collected nothing goes that the garbage collector would find

settings.register_profile("farm", max_examples=often(100), deadline=None, database=None)
settings.load_profile("farm")

# Each process of a farm would compile hundreds of modules where the environment forbids to keep what is compiled, as
# that of many containers does: tests keep it all the same, in __pycache__.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What tests/install-servers has fetched.
for folder in ("usr/sbin", "usr/bin", "bin"):
    os.environ["PATH"] += os.pathsep + str(farm_fixture.ROOT / ".venv" / "servers" / folder)


def pytest_collection_finish() -> None:
    """What thousands of tests and their modules are made of is not looked through at each collection."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def measured_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Coverage counts the processes that a module starts only where it is marked `measured`: to measure a process
    doubles the CPU of its start, and most farms run the lines that others have run."""
    name = "COVERAGE_PROCESS_CONFIG"
    config = os.environ.get(name)
    if config is None or request.node.get_closest_marker("measured"):
        yield
        return
    del os.environ[name]
    yield
    os.environ[name] = config


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure goes the end of the log of every farm that runs."""
    report = yield
    if report.failed:
        report.sections.extend((f"log of the farm on {farm.data}", farm.log_tail()) for farm in farm_fixture.started)
    return report
