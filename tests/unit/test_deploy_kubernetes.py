"""deploy/kubernetes: by the schemas of Kubernetes, and what its parts must have in common, they have."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from support.compose import compose
from support.kubernetes import FOLDER, container, pod, resources

GIVEN: Final = {"VALKEY_PASSWORD": "$(VALKEY_PASSWORD)", "ADMIN_READ_TOKEN": "token", "GRAFANA_PASSWORD": "secret"}


def settings() -> dict[str, Any]:
    return tomllib.loads(resources("ConfigMap")["farm"]["data"]["farm.toml"])


def test_the_manifests_keep_to_the_schemas() -> None:
    command = [Path(sys.executable).parent / "kubernetes-validate", "--strict", *sorted(FOLDER.glob("*.yaml"))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_pod_has_the_time_to_drain() -> None:
    routers_may_take = 10 * settings()["router"]["routers"]
    close_timeout = drain_grace = 5
    needed = settings()["drain"]["deadline"] + close_timeout + drain_grace + routers_may_take
    assert pod("farm")["terminationGracePeriodSeconds"] > needed
    probe = container("farm")["readinessProbe"]
    assert settings()["drain"]["notice"] > probe["periodSeconds"] * probe["failureThreshold"]


def test_probes_ask_what_the_farm_answers() -> None:
    farm = container("farm")
    ports = {port["name"]: port["containerPort"] for port in farm["ports"]}
    asked = {name: farm[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startupProbe": "/live",
        "livenessProbe": "/live",
        "readinessProbe": "/ready",
    }
    assert {ports[probe["port"]] for probe in asked.values()} == {8082}
    assert settings()["listen"]["admin_host"] == "0.0.0.0", "the kubelet asks from outside of the pod"


def test_there_is_a_router_for_every_pod() -> None:
    """One without is ready all the same where none is to come, and its port for app servers is closed."""
    assert settings()["router"]["routers"] >= 2 * resources("StatefulSet")["farm"]["spec"]["replicas"]


def test_no_service_makes_variables_that_look_like_settings() -> None:
    services = resources("Service")
    assert services
    assert not [name for name in services if name.upper().replace("-", "_").startswith("FARM")]
    assert pod("farm")["enableServiceLinks"] is False


def test_services_and_the_budget_choose_the_pods() -> None:
    sets = resources("StatefulSet")
    labels = [stateful["spec"]["template"]["metadata"]["labels"] for stateful in sets.values()]
    chosen = [service["spec"]["selector"] for service in resources("Service").values()]
    chosen += [budget["spec"]["selector"]["matchLabels"] for budget in resources("PodDisruptionBudget").values()]
    chosen += [stateful["spec"]["selector"]["matchLabels"] for stateful in sets.values()]
    assert all(selector in labels for selector in chosen)
    assert all(stateful["spec"]["serviceName"] in resources("Service") for stateful in sets.values())
    assert resources("PodDisruptionBudget")["farm"]["spec"]["maxUnavailable"] == 1


def test_nothing_runs_as_root_or_may_become_more() -> None:
    for name in resources("StatefulSet"):
        assert pod(name)["securityContext"]["runAsNonRoot"] is True
        context = container(name)["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_valkey_is_the_one_of_compose() -> None:
    assert container("valkey")["args"] == compose(**GIVEN)["services"]["valkey"]["command"]
    assert container("valkey")["image"] == compose(**GIVEN)["services"]["valkey"]["image"]
