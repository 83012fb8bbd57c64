"""The `farm` command.

Exit codes: 0 done, 1 failed, 2 bad arguments or configuration. What the user got wrong is told in one line a
problem on stderr, each with the option's name; a stack trace means that the fault is ours.

Only click and the reading of settings are imported here. What a command needs besides (trio, zmq, rich) is
imported inside it, so that `farm --help` and shell completion are quick.
"""

from __future__ import annotations

import errno
import importlib.util
import sys
import time
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from farm.cli import early
from farm.cli.flag_types import seconds, whole
from farm.cli.flags import with_settings
from farm.config import ConfigError, Resolved
from router.common.options import Settings

DONE: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2

# What the machine may refuse without a fault of ours: a folder, a port, room on the disk, a reader of our output.
# Any other OSError is a bug and shows its trace.
_SURROUNDINGS: Final = frozenset(
    (
        errno.EACCES,
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EPIPE,
        errno.EROFS,
    )
)

_DISTRIBUTION: Final = "connection-farm"


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the command line. Always ends by SystemExit with one of the exit codes."""
    early.open_standard_descriptors()
    if sys.argv[1:2] == ["start"]:
        early.ignore_hangup()
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process' own) and return its exit code."""
    try:
        code = cli.main(args=args, prog_name="farm", standalone_mode=False)
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx is not None else "farm"
        return _complain(f"{command}: {_one_line(exc.format_message())} (see {command} --help)", code=BAD_INPUT)
    except click.ClickException as exc:
        return _complain(f"farm: {_one_line(exc.format_message())}")
    except ConfigError as exc:
        return _complain(*exc.problems, code=BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return _complain("farm: interrupted")
    except OSError as exc:
        if exc.errno not in _SURROUNDINGS:
            raise
        place = f"{exc.filename}: " if exc.filename else ""
        return _complain(f"farm: {place}{exc.strerror or exc}")
    return code if isinstance(code, int) else DONE


def _missing(*modules: str) -> list[str]:
    """Those that are not installed: a farm runs without them."""
    return [module for module in modules if importlib.util.find_spec(module) is None]


def _install(command: str, extra: str, missing: list[str]) -> str:
    return f"{command}: {', '.join(missing)} not installed: `make tools`, or pip install 'connection-farm[{extra}]'"


def _complain(*lines: str, code: int = FAILED) -> int:
    for line in lines:
        click.echo(line, err=True)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "of this source tree"


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"farm {_version()} (Python {sys.version.split()[0]})")
        context.exit()


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print it and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """A push server that holds very many idle WebSocket devices on one small machine.

    \b
    Start one here, with its data in ./farm-data:
      farm start --workers 2
    See what this machine can hold, and what to change:
      farm doctor
    Look at a farm that runs, let its devices go and stop it:
      farm status
      farm drain
    Try WebPush with Firefox, on a page that leads through it:
      farm demo

    Settings come from farm.toml, from variables FARM_SECTION_KEY and from flags; the later wins.

    Exit codes: 0 done, 1 failed, 2 bad arguments or configuration.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command(short_help="Start a farm in the foreground.")
@with_settings(
    "--workers",
    "--host",
    "--device-port",
    "--router-port",
    "--admin-port",
    "--data",
    micronotifier=True,
    applications=True,
)
def start(resolved: Resolved) -> int:
    """Start a farm in the foreground: a router, N workers, and a supervisor over them.

    \b
    Examples:
      farm start --workers 2
      farm start --config /etc/farm/farm.toml --workers auto
      farm start --device-port 80 --data /var/lib/farm --set store.synchronous=normal
      farm start --micronotifier-config config.json --router-port 8112

    It prints what this machine allows, and one line when it is ready. SIGTERM (farm drain) lets the
    devices go over drain.seconds and ends it; SIGHUP (farm reload) replaces the processes one by one.
    """
    from farm.supervisor import supervisor

    def read_again() -> Settings:
        assert resolved.again is not None
        return resolved.again().settings

    try:
        return supervisor.run(resolved.settings, read_again)
    except supervisor.StartError as exc:
        return _complain(f"farm start: {_one_line(str(exc))}")


@cli.command(short_help="Run one worker alone.")
@click.option("--shard", type=whole(0, 9999), required=True, metavar="K", help="Number of this worker, from 0.")
@with_settings("--host", "--device-port", "--data", applications=True)
def worker(shard: int, resolved: Resolved) -> int:
    """Run one worker alone, for a set-up that has its own supervisor.

    \b
    Example:
      farm worker --shard 0 --data /var/lib/farm
    """
    from farm.worker import main as worker_main
    from router.common.listener import ListenError

    try:
        return worker_main.run_single(resolved.settings, shard)
    except ListenError as exc:
        return _complain(f"farm worker: {exc}")


@cli.command(short_help="Run the router alone.")
@with_settings("--host", "--router-port", "--admin-port", "--data", applications=True)
def router(resolved: Resolved) -> int:
    """Run the router alone, for a set-up that has its own supervisor.

    \b
    Example:
      farm router --data /var/lib/farm
    """
    from router import process
    from router.common.listener import ListenError

    try:
        return process.run_single(resolved.settings)
    except ListenError as exc:
        return _complain(f"farm router: {exc}")


@cli.command(short_help="Show a running farm.")
@click.option("--json", "as_json", is_flag=True, help="Print what the farm answered, for scripts.")
@click.option("--url", metavar="URL", help="Where it answers. Default: http://<admin host>:<admin port>/status.")
@with_settings("--admin-port")
def status(as_json: bool, url: str | None, resolved: Resolved) -> int:
    """Show a running farm: a row a worker, with its pid, state, connections and memory.

    \b
    Examples:
      farm status
      farm status --json | jq .workers[].connections
      farm status --url http://10.0.0.7:8082/status
    """
    from farm import control
    from farm.cli import report

    try:
        found = control.fetch_status(url or control.status_url(resolved.settings))
    except control.ControlError as exc:
        return _complain(f"farm status: {exc}")
    report.print_json(found) if as_json else report.print_status(found)
    return DONE


@cli.command(short_help="Check what this machine allows.")
@click.option(
    "--connections",
    type=whole(1, 10**9),
    metavar="N",
    help="How many are to be held. Default: what there is room for.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON, for scripts.")
@with_settings("--workers", "--host", "--device-port", "--router-port", "--admin-port", "--data")
def doctor(connections: int | None, as_json: bool, resolved: Resolved) -> int:
    """Check what this machine allows against what a farm needs, and say what to change.

    \b
    Examples:
      farm doctor
      farm doctor --connections 200000 --workers 2

    Exit code 1 if a check fails: the farm could not start, or could not hold the connections asked for.
    """
    from farm.cli import report
    from farm.doctor import examine
    from farm.settings import FarmOptions

    rows = examine(resolved.settings, resolved.settings.get(FarmOptions).count, connections)
    report.print_checks_json(rows) if as_json else report.print_checks(rows)
    return FAILED if any(row.status == "fail" for row in rows) else DONE


@cli.command(short_help="Let the devices go and stop the farm.")
@click.option("--timeout", type=seconds(), metavar="SECONDS", help="How long to wait. Default: for ever.")
@with_settings("--admin-port", "--data")
def drain(timeout: float | None, resolved: Resolved) -> int:
    """Let the devices of a running farm go, spread over drain.seconds, and stop it. Waits until it has gone.

    \b
    Examples:
      farm drain
      farm drain --data /var/lib/farm --timeout 60

    Exit code 1 if no farm runs on that data folder, or it has not gone in time.
    """
    from farm import control
    from farm.cli import report

    began = time.monotonic()
    try:
        with control.Supervisor(control.pid_file(resolved.settings)) as supervisor:
            gone = report.drain(supervisor, resolved.settings, timeout)
            pid = supervisor.pid
    except control.ControlError as exc:
        return _complain(f"farm drain: {exc}")
    if not gone:
        return _complain(f"farm drain: supervisor {pid} has not gone after {timeout:g} s; it goes on draining")
    click.echo(f"drained: supervisor {pid} ended after {time.monotonic() - began:.1f} s")
    return DONE


@cli.command(name="reload", short_help="Replace the workers and the router one by one.")
@click.option("--timeout", type=seconds(), metavar="SECONDS", help="How long to wait. Default: for ever.")
@with_settings("--data")
def reload_workers(timeout: float | None, resolved: Resolved) -> int:
    """Replace the workers of a running farm one by one, then its router (SIGHUP). Waits until that is done.

    New code, the settings (the file, and the variables and flags that the farm was started with) and the file of
    applications (pusher.apps) count from then on; what needs a restart (ports, farm.workers, data.dir, store.kind,
    token.keys) is named, and keeps its value. Devices reconnect to the new workers over drain.seconds. While the router
    is replaced, for less than a second, pushes wait; nothing is lost.

    \b
    Example:
      farm reload --data /var/lib/farm

    Exit code 1 if the new code or the new settings cannot be used: the farm goes on with the old ones then.
    """
    from farm import control
    from farm.cli import report

    began = time.monotonic()
    try:
        with control.Supervisor(control.pid_file(resolved.settings)) as supervisor:
            found = report.reload(supervisor, timeout)
    except control.ControlError as exc:
        return _complain(f"farm reload: {exc}")
    if found["outcome"] != control.DONE:
        return _complain(f"farm reload: {found['outcome']}: {_one_line(str(found['why']))}")
    click.echo(f"reload: done after {time.monotonic() - began:.1f} s")
    if found["needs_restart"]:
        click.echo(f"reload: changed, but needs a restart: {', '.join(found['needs_restart'])}")
    return DONE


@cli.command(name="check-config", short_help="Check the settings, print what is in force.")
@with_settings(
    "--workers",
    "--host",
    "--device-port",
    "--router-port",
    "--admin-port",
    "--data",
    micronotifier=True,
    applications=True,
)
def check_config(resolved: Resolved) -> int:
    """Check the settings file, variables and flags, and print what is in force with its sources.

    \b
    Examples:
      farm check-config --config /etc/farm/farm.toml
      FARM_LOG_FORMAT=json farm check-config --set drain.seconds=30

    Exit code 2, and one line for each problem, if anything is wrong.
    """
    from farm.configtext import as_toml

    click.echo(as_toml(resolved), nl=False)
    return DONE


@cli.command(name="default-config", short_help="Print a farm.toml with every option.")
def default_config() -> int:
    """Print a farm.toml with every option, its meaning, default, range and unit, all of it commented out.

    \b
    Example:
      farm default-config > farm.toml
    """
    from farm.configtext import render_default
    from farm.settings import all_sections

    click.echo(render_default(all_sections()), nl=False)
    return DONE


@cli.command(name="token-key", short_help="Print a new key for push endpoints.")
def token_key() -> int:
    """Print a new key for push endpoints, for token.keys. The first key seals, all of them open.

    \b
    Example, a new key before the old one so that endpoints given out earlier go on working:
      export FARM_TOKEN_KEYS="$(farm token-key),$OLD_KEYS"
    """
    from router.common.token import new_key

    click.echo(new_key())
    return DONE


@cli.command(short_help="Serve a page that tries WebPush with Firefox.")
@click.option(
    "--port",
    type=whole(0, 65535),
    default=8083,
    metavar="PORT",
    help="Where the page is served, on loopback (0 to 65535; 0 takes a free port). Default: 8083.",
)
@click.option(
    "--router-url", metavar="URL", help="Public base of push endpoints. Default: endpoint.url, or the router port here."
)
@click.option("--device-url", metavar="URL", help="What Firefox connects to. Default: ws:// and the device port here.")
@with_settings("--host", "--device-port", "--router-port")
def demo(port: int, router_url: str | None, device_url: str | None, resolved: Resolved) -> int:
    """Serve a page, on this machine only, that shows WebPush through a running farm in four steps.

    \b
      1. the preferences that point Firefox at the farm, to copy
      2. subscribe
      3. send yourself a push; the demo encrypts and signs it as an app server does
      4. see it arrive in the service worker, with the time it took

    \b
    Examples, with a farm from `farm start` running:
      farm demo
      farm demo --port 9000 --set listen.router_port=18081 --set listen.device_port=18080
      farm demo --router-url https://push.example.org --device-url wss://push.example.org/

    It posts to that farm's push endpoints and nowhere else. Its VAPID key lives as long as it runs:
    after a restart of the demo, subscribe again. Ctrl-C ends it.
    """
    if missing := _missing("http_ece", "py_vapid", "trio_websocket"):
        return _complain(_install("farm demo", "demo", missing))
    from farm.demo import server
    from farm.demo.addresses import default_device_url, default_router_url
    from farm.demo.sender import Base

    def ready(site: server.Site) -> None:
        click.echo(f"demo: open {site.url} in Firefox (devices {site.device_url}, endpoints {site.sender.base.url})")

    try:
        base = Base.parse(router_url or default_router_url(resolved.settings))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--router-url") from None
    try:
        devices = server.checked_device_url(device_url or default_device_url(resolved.settings))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--device-url") from None
    try:
        server.run(port, base, devices, ready)
    except OSError as exc:
        if exc.errno not in _SURROUNDINGS:
            raise
        why = (exc.strerror or str(exc)).lower()
        return _complain(f"farm demo: --port: cannot listen on port {port}: {why}; choose another, or 0 for a free one")
    return DONE


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def bench(args: tuple[str, ...]) -> int:
    """Measure a farm (farm bench --help)."""
    if missing := _missing("matplotlib", "trio_websocket"):
        return _complain(_install("farm bench", "bench", missing))
    from bench.cli import main as bench_main

    code = bench_main.main(args=list(args), prog_name="farm bench", standalone_mode=False)
    return code if isinstance(code, int) else DONE
