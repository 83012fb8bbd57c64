"""deploy/aws/farm.yaml: cfn-lint finds nothing, and what its parts must have in common, they have."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

from cfnlint.decode import decode
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
