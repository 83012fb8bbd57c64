"""`farm bench instances`: a farm within the memory and CPU of an instance, as many devices as were published for it,
and then as many as it takes.

Only the farm is inside: supervisor, fork server, router and workers join the control group before they are a farm. The
load is outside, on the same machine.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from bench.errors import BenchError
from bench.farm_process import started
from bench.figures.profiles import (
    OPTERON_GHZ,
    WORK_PER_CLOCK,
    Profile,
    Share,
    devices_in,
    dollars_a_million,
    ecu_per_core,
    share_of,
    workers_for,
)
from bench.interrupt import Interrupt
from bench.machine import procfs
from bench.machine.calibration import clock_ghz
from bench.machine.cgroups import CgroupError, Group, prune
from bench.machine.socket_charge import SOCKET_BYTES, SocketCharge, expected_socket_bytes, socket_charge
from bench.progress import Progress
from bench.runs.load_processes import LoadProcesses
from bench.runs.ramp import Account, Gauge
from bench.runs.stages import Plan, Trial, idle_of, prepared, ramp, reproduce

EXPECTED_MARGIN: Final = 1.06
"""So many times the devices that are expected to fit, the workers are chosen for: they are not to be the limit."""
LOOPBACK_NOTE: Final = (
    "on loopback the kernel receives a segment in the context of its sender: that part of the farm's network work is "
    "done on the load's CPU time, and of the load's on the farm's"
)


def run(plan: Plan, profiles: list[Profile], *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON. Memory in bytes, `_seconds` in s, `_ms` in ms.

    - `accounting`: `kind` (cgroup, accounted), `text`, `socket_charge`; `calibration`: how ECU became a share of a
      core; `notes`
    - `profiles`: of each its facts; `held` and `ceiling`, connections; `reproduced` (the figure, with nothing lost,
      dropped or overdue), `clean` (the same of all that was held), `limit` (`kind`, `text`), `dollars_a_million`,
      `error` if it ended early; and the stages `reproduce` and `ramp`
    - a stage: `setup` (as in connect), `workers`, `load_processes`, `start_seconds`, `hold_seconds`, `ping_seconds`,
      `held`, `drops`, `pings`, `idle` and `memory` (the farm without and with its devices), `connection` (of one:
      `user`, `kernel`, `all`; `workers` and `router`, private), `peak`, `share_of_memory`, `oom_kills`, `cpu_empty` and
      `cpu_idle` (without and with devices: `cores`, `throttled`: part of the periods), `push` (as the runs of push,
      with `farm_cores`), `after_push` (connected then), `shards`, `gc_pause_max_ms`, `limit`, `notes`
    - `reproduce` also `target`; `ramp` also `steps` (one a wave) and `points` (of the curve: `seconds`, `devices`,
      `used`, `user`, `kernel`)

    Raises:
      BenchError: not one profile could be tried.
    """
    result: dict[str, Any] = {"notes": [LOOPBACK_NOTE]}
    progress.step("looking for control groups")
    charge, reason = _charge(plan)
    result["accounting"] = _accounting(charge, reason)
    clock = clock_ghz()
    ecu = plan.ecu or ecu_per_core(clock)
    result["calibration"] = {
        "clock_ghz": round(clock, 3),
        "ecu_per_core": round(ecu, 3),
        "given": bool(plan.ecu),
        "text": "an ECU is a 1.0 to 1.2 GHz 2007 Opteron; "
        + (
            f"a core of here is said to have {ecu:g} of them"
            if plan.ecu
            else f"this core runs at {clock:.2f} GHz (measured), does {WORK_PER_CLOCK:g} times as much a clock (taken "
            f"from AWS's rating of later cores), and so has {clock:.2f} x {WORK_PER_CLOCK:g} / {OPTERON_GHZ:g} = "
            f"{ecu:.2f} ECU"
        ),
    }
    result["profiles"] = rows = []
    for profile in profiles:
        if interrupt.requested:
            break
        row = _described(plan, profile, share_of(profile, ecu, procfs.cores()), charge)
        rows.append(row)
        try:
            _try_profile(plan, profile, row, charge, interrupt, progress)
        except BenchError as error:
            if not interrupt.requested:
                row["error"] = str(error)
        _sum_up(plan, profile, row)
    if rows and all("error" in row and "reproduce" not in row and "ramp" not in row for row in rows):
        raise BenchError(f"{rows[0]['name']}: {rows[0]['error']}")
    return result


# ---------------------------------------------------------------------- what stands in the result beforehand


def _charge(plan: Plan) -> tuple[SocketCharge | None, str]:
    """What a group is charged for a socket, or None and why no group is to be had."""
    try:
        prune()
        return (socket_charge(), "") if plan.groups else (None, "asked for (--no-cgroup)")
    except CgroupError as error:
        return None, str(error)


def _accounting(charge: SocketCharge | None, reason: str) -> dict[str, Any]:
    if charge is None:
        return {
            "kind": "accounted",
            "text": f"NO CONTROL GROUP: {reason}. Memory is accounted, not limited: the farm's processes (PSS) and "
            f"{expected_socket_bytes() or SOCKET_BYTES:,} bytes a connection for the kernel's objects; CPU is not "
            "limited",
            "socket_charge": None,
        }
    return {
        "kind": "cgroup",
        "text": f"the farm runs in a control group of each profile's memory and CPU; {charge.describe()}",
        "socket_charge": {
            "charged": charge.charged,
            "expected": charge.expected,
            "full": charge.full,
            "missing": charge.missing,
        },
    }


def _described(plan: Plan, profile: Profile, share: Share, charge: SocketCharge | None) -> dict[str, Any]:
    return {
        "name": profile.name,
        "about": profile.about,
        "memory": profile.memory,
        "vcpus": profile.vcpus,
        "ecu": profile.ecu,
        "pushgo": profile.pushgo,
        "cpus": share.cpus if charge is not None else None,
        "cpus_text": share.reason if charge is not None else f"{share.reason}; NOT LIMITED, no control group",
        "price": plan.prices.get(profile.name),
    }


# ---------------------------------------------------------------------- one profile


def _try_profile(
    plan: Plan,
    profile: Profile,
    row: dict[str, Any],
    charge: SocketCharge | None,
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    """Reproduce, then ramp, on the same farm if its workers can hold all that the memory may."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    target = (profile.pushgo or plan.devices) if plan.reproduce else 0
    target = min(target, plan.most) if plan.most else target
    expected = int(devices_in(profile.memory, descriptors) * EXPECTED_MARGIN)
    expected = min(expected, plan.most) if plan.most else expected
    ramping = plan.ramp and not (target and target == plan.most)
    connection = None
    if target:
        workers = plan.workers or workers_for(target, profile.vcpus, descriptors)
        enough = plan.workers or workers >= workers_for(expected, profile.vcpus, descriptors)
        with _trial(plan, row, profile, workers, charge, interrupt, progress) as trial:
            watch, waves = prepared(plan, trial, plan.ping, max(target, expected // 10 if enough and ramping else 0))
            done: dict[str, Any] = {"target": target}
            row["reproduce"] = done
            idle = idle_of(trial)
            reproduce(plan, trial, waves, watch, done, idle, progress)
            connection = done.get("connection", {}).get("all")
            if ramping and enough and not interrupt.requested and done.get("limit") is None:
                row["ramp"] = {}
                ramp(plan, trial, waves, watch, row["ramp"], progress, idle)
                return
    if not ramping or interrupt.requested or row.get("reproduce", {}).get("limit") is not None:
        return
    if connection:
        measured = int(devices_in(profile.memory, descriptors, connection) * EXPECTED_MARGIN)
        expected = min(measured, plan.most) if plan.most else measured
    workers = plan.workers or workers_for(expected, profile.vcpus, descriptors)
    with _trial(plan, row, profile, workers, charge, interrupt, progress) as trial:
        watch, waves = prepared(plan, trial, plan.ramp_ping, expected)
        row["ramp"] = {}
        ramp(plan, trial, waves, watch, row["ramp"], progress)


@contextmanager
def _trial(
    plan: Plan,
    row: dict[str, Any],
    profile: Profile,
    workers: int,
    charge: SocketCharge | None,
    interrupt: Interrupt,
    progress: Progress,
) -> Iterator[Trial]:
    """A farm in a new group of the profile; stopped and removed with the block."""
    progress.step(f"{profile.name}: starting a farm of {workers} workers")
    with ExitStack() as stack:
        group, notes = None, []
        account = Account(expected_socket_bytes() or SOCKET_BYTES)
        cpus = row["cpus"]
        if charge is not None:
            group = stack.enter_context(Group(profile.name, profile.memory, cpus))
            notes = group.notes
        began = time.monotonic()
        farm = stack.enter_context(
            started(
                workers,
                plan.store,
                interrupt,
                plan.settings,
                join=group.join if group is not None else None,
                slowness=max(1.0, 1 / cpus) if cpus else 1.0,
            )
        )
        account.supervisor = farm.supervisor
        processes = stack.enter_context(LoadProcesses(interrupt))
        if group is not None:
            stack.callback(group.cap, None)  # what is measured is over: to let go of all that need not take long
        yield Trial(
            profile,
            cpus,
            farm,
            processes,
            account if group is None or charge is None else Gauge(group, charge.missing),
            workers,
            time.monotonic() - began,
            notes,
        )


def _sum_up(plan: Plan, profile: Profile, row: dict[str, Any]) -> None:
    """What the comparison shows: devices held for the figure, the ceiling and its limit, and what they cost."""
    figure, ramp = row.get("reproduce", {}), row.get("ramp", {})
    row["held"] = figure.get("held")
    row["ceiling"] = ramp.get("held")
    most = max(filter(None, (row["held"], row["ceiling"])), default=0)
    row["dollars_a_million"] = dollars_a_million(row["price"], most)
    row["reproduced"] = _clean(figure) and figure["held"] >= figure["target"] if figure else None
    row["clean"] = all(_clean(stage) for stage in (figure, ramp) if stage) and "error" not in row
    row["limit"] = ramp.get("limit") or figure.get("limit")


def _clean(stage: dict[str, Any]) -> bool:
    """Whether all that was held stayed, every ping was answered and no accepted push was lost."""
    pushed = all(run["clean"] and not run["undelivered"] for run in stage.get("push", []))
    quiet = not stage.get("drops") and not stage.get("pings", {}).get("overdue") and not stage.get("oom_kills")
    return "held" in stage and pushed and quiet
