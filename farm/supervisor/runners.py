"""What the supervisor's fork server imports, and what can be forked from it: the router, a worker, and a check of new
code and settings."""

from __future__ import annotations

import socket
from typing import Any

import farm.worker.main
import router.process
from farm.sections import all_sections
from farm.settings import FarmOptions
from farm.supervisor import interface
from farm.supervisor.log_socket import copy_events, is_log_socket
from router import __version__, dialects
from router.common import lifecycle, tls
from router.common.errors import MendableError
from router.common.fork_server import Runner, Served, in_one_line
from router.common.options import from_mapping
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.store import registry


def served(mapping: dict[str, Any]) -> Served:
    """For `router.common.fork_server`, with the settings as a mapping, and what `farm.supervisor.interface` adds.

    Each process inherits its socket to the supervisor, its listeners (the check has none), and the socket that log
    events are sent to besides. An exception that ends it is sent on the first one.
    Raises: MendableError if this supervisor cannot run this code.
    """
    if why := interface.why_not_under(mapping):
        raise MendableError(why)
    settings = from_mapping(all_sections(), mapping)
    # Before any process is forked: one that is forked after other code was put here would run some of each.
    registry.load(settings)
    dialects.load(settings)
    # Also before: sessions are resumed in all of them.
    contexts, problems = _contexts(settings.get(TlsOptions))

    def check(number: int, descriptors: list[int]) -> int:
        try:
            expired = [] if problems else tls.problems(settings.get(TlsOptions))
            if problems or expired:
                raise tls.TlsError(*problems, *expired)
            router.process.check(settings)
            farm.worker.main.check(settings)
        except lifecycle.MENDABLE as error:
            lifecycle.report_failure(descriptors[0], str(error))
            return 1
        return 0

    def run_router(number: int, descriptors: list[int]) -> int:
        listener = socket.socket(fileno=descriptors[1])
        return router.process.run(settings, number, listener, descriptors[0], settings.get(FarmOptions).count, contexts)

    def run_worker(number: int, descriptors: list[int]) -> int:
        listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors[1:]]
        return farm.worker.main.run(settings, number, listeners, descriptors[0], contexts)

    runners = {"check": check, "router": run_router, "worker": run_worker}
    reporting = {kind: _reporting(runner, problems if kind != "check" else []) for kind, runner in runners.items()}
    return Served(reporting, "farm", {"version": __version__, **interface.of_code()})


def _contexts(options: TlsOptions) -> tuple[Contexts | None, list[str]]:
    """What all processes share of TLS; or why there is none, a line each."""
    try:
        return tls.contexts(options), []
    except tls.TlsError as error:
        return None, list(error.problems)


def _reporting(runner: Runner, problems: list[str]) -> Runner:
    """problems: that keep it from running."""

    def run(number: int, descriptors: list[int]) -> int:
        if problems:
            lifecycle.report_failure(descriptors[0], "; ".join(problems))
            return 1
        try:
            if is_log_socket(descriptors[-1]):  # a supervisor of 0.1.0 may have none
                copy_events(descriptors.pop())
            return runner(number, descriptors)
        except BaseException as error:
            lifecycle.report_failure(descriptors[0], in_one_line(error))
            raise

    return run
