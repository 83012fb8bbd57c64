"""deploy/aws/farm.yaml: cfn-lint finds nothing, and what its parts must have in common, they have."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from cfnlint.decode import decode
from support.installed import find_program, with_libraries
from support.sources import ROOT

from bench.figures.profiles import PROFILES

TEMPLATE: Final = ROOT / "deploy/aws/farm.yaml"
TLS_IDLE_TIMEOUT: Final = 350
"""Of an NLB's TLS listener, which cannot be changed."""
GIVEN: Final = {"EndpointUrl": "https://push.example.org:8443", "KeysSecretArn": "keys", "StorePassword": "password"}


@cache
def template() -> dict[str, Any]:
    found, errors = decode(str(TEMPLATE))
    assert not errors
    assert found is not None
    return found


def parameter(name: str, what: str = "Default") -> Any:
    return template()["Parameters"][name][what]


def properties(name: str) -> dict[str, Any]:
    return template()["Resources"][name]["Properties"]


def user_data(**given: object) -> str:
    """As an instance gets it, with the defaults of the parameters, or these."""
    text: str = properties("HostTemplate")["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"]
    values = {name: what.get("Default", "") for name, what in template()["Parameters"].items()} | GIVEN | given
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", str(value))
    return text


def heredoc(script: str, path: str) -> str:
    start = script.index("\n", script.index(f"cat > {path} <<")) + 1
    return script[start : script.index("\nEND\n", start) + 1]


def attributes(name: str) -> dict[str, str]:
    return {row["Key"]: row["Value"] for row in properties(name)["TargetGroupAttributes"]}


def test_cfn_lint_finds_nothing() -> None:
    run = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", "--regions", "us-east-1", "eu-central-1", "--", str(TEMPLATE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_instance_types_are_those_that_the_plan_knows() -> None:
    for name in ("InstanceType", "SecondInstanceType"):
        assert set(parameter(name, "AllowedValues")) <= set(PROFILES)
        assert parameter(name) in parameter(name, "AllowedValues")
    assert parameter("InstanceType") != parameter("SecondInstanceType")


def test_the_balancer_waits_for_longer_than_a_device_is_silent() -> None:
    assert parameter("IdleTimeout") > 2 * parameter("Keepalive")
    assert parameter("IdleTimeout", "MaxValue") > 2 * parameter("Keepalive", "MaxValue")
    allowed = template()["Rules"]["TlsNeedsShortPings"]["Assertions"][0]["Assert"]["Fn::Contains"][0]
    assert allowed
    assert all(2 * int(value) < TLS_IDLE_TIMEOUT for value in allowed)
    network = properties("HostTemplate")["LaunchTemplateData"]["NetworkInterfaces"][0]
    tracked = network["ConnectionTrackingSpecification"]["TcpEstablishedTimeout"]
    assert tracked > parameter("IdleTimeout", "MaxValue")


def test_targets_are_judged_by_ready_and_keep_their_connections() -> None:
    for name in ("Devices", "AppServers"):
        assert properties(name)["HealthCheckPath"] == "/ready"
        assert attributes(name)["preserve_client_ip.enabled"] == "true"
        assert attributes(name)["target_health_state.unhealthy.connection_termination.enabled"] == "false"
        assert attributes(name)["deregistration_delay.connection_termination.enabled"] == "false"


def test_a_host_drains_for_as_long_as_it_may() -> None:
    settings = tomllib.loads(heredoc(user_data(), "/etc/farm/farm.toml"))
    noticed = properties("Devices")["HealthCheckIntervalSeconds"] * properties("Devices")["UnhealthyThresholdCount"]
    assert settings["drain"]["notice"] > noticed
    most = parameter("Routers", "MaxValue")
    assert f"$((920 + 10 * {most}))" in user_data(Routers=most)
    stop = 920 + 10 * most
    assert stop > settings["drain"]["deadline"]
    hooks = {hook["LifecycleHookName"]: hook for hook in properties("Group")["LifecycleHookSpecificationList"]}
    assert hooks["drain"]["HeartbeatTimeout"] > stop
    script = user_data()
    assert all(f"--lifecycle-hook-name {name} " in script for name in hooks)


def test_hosts_reach_each_others_routers() -> None:
    rule = properties("HostsToHosts")
    bind = tomllib.loads(heredoc(user_data(), "/etc/farm/farm.toml"))["cluster"]["bind"]
    assert int(bind.rpartition(":")[2]) == rule["FromPort"]
    assert rule["ToPort"] == rule["FromPort"] + 2 * (parameter("Routers", "MaxValue") - 1) + 1


def test_the_user_data_is_a_script_that_an_instance_can_have() -> None:
    script = user_data()
    assert len(script.encode()) < 16 * 1024 - 1024, "16 KiB is the most, and names of resources are still to be put in"
    for text in (script, heredoc(script, "/usr/local/sbin/farm-leave")):
        run = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
    assert "/opt/farm/deploy/99-farm.conf" in script
    assert "net.ipv4.tcp_mem = " in (ROOT / "deploy/99-farm.conf").read_text()


def programs(folder: Path, **scripts: str) -> dict[str, str]:
    """Stand-ins for what only an instance has, which write down what they were asked. Returns: variables."""
    for name, script in scripts.items():
        file = folder / name
        file.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/asked\n{script}\n')
        file.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


METADATA: Final = """case "$*" in *lifecycle-state) echo $STATE;; *instance-id) echo i-0123;; *) echo token;; esac"""


@pytest.mark.parametrize(
    ("state", "stop", "complete", "asked"),
    [
        ("InService", 0, 0, []),
        ("Terminated", 0, 0, ["systemctl stop farm", "aws", "systemctl stop --no-block farm-leave.timer"]),
        # The farm is dead: the host goes all the same.
        ("Terminated", 1, 0, ["systemctl stop farm", "aws", "systemctl stop --no-block farm-leave.timer"]),
        # The answer does not get through: the timer goes on, and tries again.
        ("Terminated", 0, 1, ["systemctl stop farm", "aws"]),
    ],
)
def test_a_host_that_goes_drains_and_says_so(
    tmp_path: Path, state: str, stop: int, complete: int, asked: list[str]
) -> None:
    variables = programs(tmp_path, curl=METADATA, systemctl=f"exit {stop}", aws=f"exit {complete}")
    script = heredoc(user_data(), "/usr/local/sbin/farm-leave")
    run = subprocess.run(["bash", "-c", script], env=variables | {"STATE": state}, check=False)
    assert run.returncode or not complete, "systemd is to show that it failed"
    lines = (tmp_path / "asked").read_text().splitlines()
    found = [line for line in lines if not line.startswith("curl")]
    assert len(found) == len(asked) and all(line.startswith(one) for line, one in zip(found, asked, strict=True)), found
    for line in found:
        if line.startswith("aws"):
            assert "--lifecycle-hook-name drain" in line and line.endswith("--instance-id i-0123")


@pytest.mark.parametrize("missing", ["nothing", "token_keys", "cluster_key", "everything"])
def test_a_host_without_its_secrets_does_not_start_with_wrong_ones(tmp_path: Path, missing: str) -> None:
    secrets = {name: f"{name}-value" for name in ("token_keys", "cluster_key") if name != missing}
    answer = f"case \"$*\" in *keys*) echo '{json.dumps(secrets)}';; *) echo password;; esac"
    jq = find_program("jq", str(ROOT / ".venv/servers/usr/bin/jq"))
    variables = with_libraries(jq) | programs(tmp_path, aws="exit 1" if missing == "everything" else answer)
    variables["PATH"] += f":{Path(jq).parent}"
    script = user_data()
    begin = script.index("(\n  umask 077")
    part = script[begin : script.index("\n)\n", begin) + 3].replace("/etc/farm", str(tmp_path))
    run = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + part + "echo goes on"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    file = tmp_path / "farm.env"
    assert (run.returncode == 0, "goes on" in run.stdout, file.exists()) == ((missing == "nothing",) * 3), run
    assert "value" not in run.stdout + run.stderr
    if missing == "nothing":
        assert file.stat().st_mode & 0o777 == 0o600
        lines = file.read_text().splitlines()
        assert lines[:2] == ["FARM_TOKEN_KEYS=token_keys-value", "FARM_CLUSTER_KEY=cluster_key-value"]
        assert lines[2].startswith("FARM_REDIS_URL=rediss://:password@")


def test_the_farm_takes_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "farm.toml"
    text = heredoc(user_data(), "/etc/farm/farm.toml").replace("$address", "10.0.0.2").replace("$instance", "i-0123")
    file.write_text(text)
    key = "jIX10ykJZKK9-ZzEqqmdoFEODeXymwknevGUqMQ0oUs="
    secrets = {
        "FARM_TOKEN_KEYS": key,
        "FARM_CLUSTER_KEY": key,
        "FARM_REDIS_URL": "rediss://:secret@store.example:6379/0",
    }
    assert all(f"{name}=%s" in user_data() or f"{name}=rediss://" in user_data() for name in secrets)
    run = subprocess.run(
        [sys.executable, "-m", "farm", "check-config", "--config", str(file), "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
        env=secrets,
    )
    assert run.returncode == 0, run.stderr
