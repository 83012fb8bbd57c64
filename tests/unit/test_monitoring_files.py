"""deploy/prometheus, grafana and logs: by Prometheus' own tool, and against the numbers that the farm has."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.farm_fixture import ROOT
from support.installed import find_program

from farm.dialects import specs
from farm.option_value import options_of
from farm.sections import all_sections
from farm.supervisor.admin import FARM_METRICS
from farm.supervisor.cluster_status import CLUSTER_METRICS
from router.common.exposition import LIMITED, PROCESSES
from router.common.log_events import LOG_EVENTS
from router.common.metrics import Metric
from router.common.settings import StoreOptions
from router.dialects import all_metrics

PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
RULES: Final = (PROMETHEUS / "farm.rules.yml").read_text(encoding="utf-8")
RULES_TESTS: Final = (PROMETHEUS / "farm.rules.test.yml").read_text(encoding="utf-8")
DASHBOARD: Final = (ROOT / "deploy" / "grafana" / "farm.json").read_text(encoding="utf-8")
_NAME: Final = re.compile(r"(?<![\w.:])(?:instance:)?farm_\w+(?::\w+)?")
_ALERT: Final = re.compile(r"^ +- alert: (\w+)\n(.*?)(?=^ +- (?:alert|name|record):|\Z)", re.MULTILINE | re.DOTALL)
_ENDINGS: Final = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def promtool(*arguments: str | Path) -> str:
    """What it prints. Raises: AssertionError, where it finds something."""
    command = [find_program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def exported() -> set[str]:
    """Every name on the page of metrics."""
    of_router, of_worker = all_metrics(specs())

    def names(prefix: str, metrics: tuple[Metric, ...]) -> Iterator[str]:
        for one in metrics:
            if not one.reason:
                yield from (f"{prefix}{one.name}{ending}" for ending in _ENDINGS[one.kind])

    return {
        *names("farm_", (*FARM_METRICS, *PROCESSES, *CLUSTER_METRICS)),
        *names("farm_router_", tuple(of_router)),
        *names("farm_worker_", tuple(of_worker)),
        f"{LIMITED}_total",
    }


def alerts() -> dict[str, str]:
    """The text of each, by name."""
    return {found[1]: found[2] for found in _ALERT.finditer(RULES)}


def anchors(page: Path) -> set[str]:
    """Those that mkdocs gives the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", PROMETHEUS / "farm.rules.yml")
    assert "SUCCESS" in promtool("test", "rules", PROMETHEUS / "farm.rules.test.yml")
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")


def test_every_alert_goes_off_in_a_test() -> None:
    assert len(alerts()) > 30
    untested = {name for name in alerts() if f'alertname="{name}"' not in RULES_TESTS}
    assert not untested - {"FarmDrainTakesLong"} and "FarmDrainTakesLong" in RULES_TESTS


@pytest.mark.parametrize("name", ["prometheus/farm.rules.yml", "prometheus/farm.rules.test.yml", "grafana/farm.json"])
def test_every_metric_that_a_file_names_exists(name: str) -> None:
    named = set(_NAME.findall((ROOT / "deploy" / name).read_text(encoding="utf-8")))
    recorded = set(re.findall(r"record: (\S+)", RULES))
    assert len(named) > 20
    assert named - exported() - recorded == set()


def test_every_alert_says_what_to_do_and_where_more_stands() -> None:
    for name, text in alerts().items():
        assert re.search(r"severity: (critical|warning)\b", text), name
        for part in ("summary", "description", "runbook"):
            assert len(re.findall(rf"^ +{part}: \S", text, re.MULTILINE)) == 1, f"{name} has no {part}"
        found = re.search(r"runbook: (docs/[\w/.-]+)(?:#([\w-]+))?$", text, re.MULTILINE)
        assert found, f"{name}: the runbook is a page of docs/"
        page = ROOT / found[1]
        assert page.is_file(), f"{name}: {found[1]}"
        assert found[2] is None or found[2] in anchors(page), f"{name}: {found[0]}"


def test_every_option_and_log_event_that_the_rules_name_exists() -> None:
    options = {option.key for section in all_sections() for option in options_of(section)}
    events = LOG_EVENTS.keys() | {name for spec in specs() for name in spec.log_events}
    sections = {name.partition(".")[0] for name in options | events}
    named = set(re.findall(r"\b[a-z_]+\.[a-z_]+\b", re.sub(r"\S+\.md\S*", "", "".join(alerts().values()))))
    named = {name for name in named if name.partition(".")[0] in sections}
    assert {"store.queue_limit", "process.hangs"} <= named
    assert named - options - events == set()


def test_limits_that_follow_from_a_default_are_those_of_the_default() -> None:
    assert f"farm_router_store_waiting > {StoreOptions().queue_limit // 2} " in RULES
    assert f"store.queue_limit ({StoreOptions().queue_limit})" in RULES


def panels() -> list[dict[str, Any]]:
    """Of the dashboard, in order; rows too."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD)["panels"]
    return found


def queries() -> list[tuple[str, str]]:
    """Each expression of the dashboard, and its legend."""
    return [(one["expr"], one["legendFormat"]) for panel in panels() for one in panel.get("targets", ())]


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    # As rules, which promtool parses; what Grafana fills in is filled in here.
    filled = [expr.replace("$__rate_interval", "1m").replace("$instance", ".+") for expr, _ in queries()]
    assert len(filled) > 60 and not any("$" in expr for expr in filled)
    rules = [{"record": f"dashboard:{number}", "expr": expr} for number, expr in enumerate(filled)]
    file = tmp_path / "rules.json"  # which is YAML as well
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", file)


def test_the_dashboard_asks_for_chosen_hosts_only_and_names_what_it_groups_by() -> None:
    for expr, legend in queries():
        assert expr.count('{instance=~"$instance"') == len(_NAME.findall(expr)), expr
        grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expr) for label in labels.split(",")}
        assert set(re.findall(r"{{(\w+)}}", legend)) == grouped - ({"le"} if legend != "{{le}}" else set()), expr


def test_the_panels_of_the_dashboard_have_their_own_place_and_number() -> None:
    assert [panel["title"] for panel in panels() if panel["type"] == "row"] == [
        *("Devices", "Pushes and events", "Latency", "Store", "Processes", "Limits", "Cluster")
    ]
    assert len({panel["id"] for panel in panels()}) == len(panels())
    taken = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24


def test_the_log_shippers_read_the_unit_that_there_is() -> None:
    assert (ROOT / "deploy" / "farm.service").is_file()
    vector = tomllib.loads((ROOT / "deploy" / "logs" / "vector.toml").read_text(encoding="utf-8"))
    assert vector["sources"]["farm_journal"]["include_units"] == ["farm.service"]
    assert vector["transforms"]["farm"]["inputs"] == list(vector["sources"])
    assert [sink["inputs"] for sink in vector["sinks"].values()] == [list(vector["transforms"])]
    fluent_bit = (ROOT / "deploy" / "logs" / "fluent-bit.conf").read_text(encoding="utf-8")
    assert re.search(r"^    Systemd_Filter  _SYSTEMD_UNIT=farm\.service$", fluent_bit, re.MULTILINE)
    tags = set(re.findall(r"^ +(?:Tag|Match) +(\S+)", fluent_bit, re.MULTILINE))
    assert tags == {"farm"}
